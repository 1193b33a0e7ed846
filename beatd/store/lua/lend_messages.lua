-- Lend messages whose time has come to a worker, which publishes them. What it does not strike off in time is lent again.
--
-- KEYS[1]  zset, gone when empty: messages that wait, "<queue>\0<message>" -> due (ms)
-- KEYS[2]  zset, gone when empty: messages that are lent, "<queue>\0<message>" -> until when (ms)
-- ARGV[1]  now, ms since the epoch
-- ARGV[2]  until when those are lent that are returned (ms)
-- ARGV[3]  how many at most
--
-- Returns {due of the next one (ms) or '', message, …}, those that are due the longest in front.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  redis.call('ZREM', KEYS[2], member)
  redis.call('ZADD', KEYS[1], ARGV[1], member)
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, member in ipairs(due) do
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZADD', KEYS[2], ARGV[2], member)
end
local next_due = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {next_due[2] or '', unpack(due)}
