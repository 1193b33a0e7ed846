-- Return messages to the head of their queues. One that the worker has acknowledged meanwhile is left out.
--
-- KEYS[1]      hash, gone when empty: unacknowledged messages of the worker, tag -> "<queue key>\0<message>"
-- KEYS[1 + i]  lists: the queue of the i-th message
-- ARGV         tag, message; tag, message; …   (the one to be taken first comes last)
--
-- Returns for each message 1, 0 when it is left out, or why its queue cannot be written to: then it stays as it
-- is: the server undoes nothing of a script that fails half way. It is removed first all the same, as a server that
-- is out of memory takes no other first write.
local answers = {}
for i = 2, #KEYS do
  local tag, message = ARGV[2 * i - 3], ARGV[2 * i - 2]
  local held = redis.call('HGET', KEYS[1], tag)
  answers[i - 1] = redis.call('HDEL', KEYS[1], tag)
  local pushed = held and redis.pcall('RPUSH', KEYS[i], message)
  if type(pushed) == 'table' then
    redis.call('HSET', KEYS[1], tag, held)
    answers[i - 1] = pushed.err
  end
end
return answers
