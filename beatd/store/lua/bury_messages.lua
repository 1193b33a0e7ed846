-- Move messages that nobody can run to the dead letters.
--
-- KEYS[1]  hash, gone when empty: the worker's unacknowledged messages, tag -> "<queue key>\0<message>"
-- KEYS[2]  list, capped: dead letters, JSON, the newest on the left
-- ARGV[1]  how many dead letters to keep
-- ARGV     then: tag, dead letter, tag, dead letter, …
--
-- Returns the number of messages buried.
local buried = 0
for i = 2, #ARGV, 2 do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    redis.call('LPUSH', KEYS[2], ARGV[i + 1])
    buried = buried + 1
  end
end
redis.call('LTRIM', KEYS[2], 0, ARGV[1] - 1)
return buried
