-- Lend messages whose time has come to a worker, which publishes them. A message that it does not remove in time is
-- lent again.
--
-- KEYS[1]  zset, gone when empty: delayed messages, "<queue>\0<message>" -> due (ms)
-- KEYS[2]  zset, gone when empty: lent messages, "<queue>\0<message>" -> until when (ms)
-- ARGV[1]  now (ms)
-- ARGV[2]  until when the returned messages are lent (ms)
-- ARGV[3]  number of messages at most
--
-- Returns {due of the next one (ms) or '', message, …}, the longest due first. Both keys are tried before a message is
-- removed from one of them, as the server undoes nothing of a script that fails half way.
redis.call('ZCARD', KEYS[1])
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
