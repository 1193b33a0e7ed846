-- Put messages of dead letters back into their queues, each exactly once.
--
-- KEYS[1]      list, capped: dead letters, JSON, the newest on the left
-- KEYS[1 + i]  lists: the queue of the i-th letter
-- ARGV         letter, message, letter, message, …
--
-- Returns for each letter 1, or 0 when it is not there any more.
local answers = {}
for i = 2, #KEYS do
  local letter, message = ARGV[2 * i - 3], ARGV[2 * i - 2]
  answers[i - 1] = redis.call('LREM', KEYS[1], 1, letter)
  if answers[i - 1] == 1 then
    redis.call('LPUSH', KEYS[i], message)
  end
end
return answers
