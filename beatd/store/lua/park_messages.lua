-- Park messages until their time has come.
--
-- KEYS[1]  hash, gone when empty: unacknowledged messages of the worker, tag -> "<queue key>\0<message>"
-- KEYS[2]  zset, gone when empty: parked messages, "<tag>\0<queue key>\0<message>" -> due (ms)
-- ARGV     tag, due (ms), "<queue key>\0<message>"; … The message is kept as it is given here.
--
-- Returns the number of messages parked. KEYS[2] is tried before a message is removed: the server undoes nothing of a
-- script that fails half way.
redis.call('ZCARD', KEYS[2])
local parked = 0
for i = 1, #ARGV, 3 do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    -- The tag keeps two messages apart that are equal to the last byte.
    redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i] .. '\0' .. ARGV[i + 2])
    parked = parked + 1
  end
end
return parked
