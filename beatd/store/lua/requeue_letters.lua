-- Put messages of dead letters back into their queues, each exactly once.
--
-- KEYS[1]      list, bounded: dead letters, JSON, the newest on the left
-- KEYS[2]      string: bytes of all dead letters in the list
-- KEYS[2 + i]  lists: the queue of the i-th dead letter
-- ARGV         dead letter, message; dead letter, message; …
--
-- Returns for each dead letter 1, or 0 when it is not there any more, or why its queue cannot be written to: then it
-- stays. That is tried before the dead letter is removed, as the server undoes nothing of a script that fails half way.
local answers = {}
for i = 1, #KEYS - 2 do
  local letter, message = ARGV[2 * i - 1], ARGV[2 * i]
  local tried = redis.pcall('LLEN', KEYS[i + 2])
  if type(tried) == 'table' then
    answers[i] = tried.err
  else
    answers[i] = remove_dead_letter(KEYS[1], KEYS[2], letter)
    if answers[i] == 1 then
      redis.call('LPUSH', KEYS[i + 2], message)
    end
  end
end
return answers
