-- Forget entries that have been out of the schedule for long.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  gone      zset    name of an entry that is not in the schedule -> ms since when
-- KEYS[3…] the hashes that have a field for each entry
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  now (ms)
-- ARGV[3]  forget those that have been gone since before this moment (ms)
-- ARGV[4]  how many of the following names are gone; the rest are back
-- ARGV[5…] names
--
-- Returns the names that were forgotten; error FENCED when the term is over.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end
local gone = tonumber(ARGV[4])
for i = 5, #ARGV do
  if i - 4 <= gone then
    redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[i])
  else
    redis.call('ZREM', KEYS[2], ARGV[i])
  end
end
local forgotten = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[3], 'LIMIT', 0, 1000)
for _, name in ipairs(forgotten) do
  for k = 3, #KEYS do
    redis.call('HDEL', KEYS[k], name)
  end
  redis.call('ZREM', KEYS[2], name)
end
return forgotten
