-- Return messages to the head of their queues. One that the worker has acknowledged meanwhile is left out.
--
-- KEYS[1]      hash, gone when empty: unacknowledged messages of the worker, tag -> "<queue key>\0<message>"
-- KEYS[1 + i]  lists: the queue of the i-th message
-- ARGV         tag, message; tag, message; …   (the one to be taken first comes last)
--
-- Returns the number of messages returned.
local returned = 0
for i = 2, #KEYS do
  local tag, message = ARGV[2 * i - 3], ARGV[2 * i - 2]
  if redis.call('HDEL', KEYS[1], tag) == 1 then
    redis.call('RPUSH', KEYS[i], message)
    returned = returned + 1
  end
end
return returned
