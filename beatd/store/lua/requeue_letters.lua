-- Put messages of dead letters back into their queues, each exactly once.
--
-- KEYS[1]      list, bounded: dead letters, JSON, the newest on the left
-- KEYS[2]      string: bytes of all dead letters in the list
-- KEYS[2 + i]  lists: the queue of the i-th dead letter
-- ARGV         dead letter, message; dead letter, message; …
--
-- Returns for each dead letter 1, or 0 when it is not there any more, or why its queue cannot be written to: then it
-- stays, in its place. So it is removed after the push: the server undoes nothing of a script that fails half way.
local answers = {}
-- Nothing is removed here, as no letter is empty. Where the user may not remove one, this fails before the first push;
-- and a server that is out of memory takes a push only behind another write.
redis.call('LREM', KEYS[1], 1, '')
for i = 1, #KEYS - 2 do
  local letter, message = ARGV[2 * i - 1], ARGV[2 * i]
  local pushed = redis.pcall('LPUSH', KEYS[i + 2], message)
  if type(pushed) == 'table' then
    answers[i] = pushed.err
  else
    answers[i] = remove_dead_letter(KEYS[1], KEYS[2], letter)
    if answers[i] == 0 then
      redis.call('LREM', KEYS[i + 2], 1, message)
    end
  end
end
return answers
