-- Settle a notice that was taken: it was sent or given up, or is to be tried again.
--
-- KEYS[1]  notices  hash  id -> notice, JSON
-- KEYS[2]  due      zset  id -> when it is to be sent (ms, by the server's clock)
-- ARGV[1]  id
-- ARGV[2]  notice, JSON; empty: it is removed
-- ARGV[3]  time (ms) until it is tried again
--
-- Returns nothing. A notice that is not there any more stays away.

if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
elseif redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('ZADD', KEYS[2], string.format('%.0f', now_by_server() + ARGV[3]), ARGV[1])
end
