-- Put an entry into the store, or another in its place.
--
-- KEYS[1]  schedules  hash    entry name -> its table, JSON
-- KEYS[2]  revision   string  number of changes so far
-- KEYS[3]  changes    zset    entry name -> revision of its last change, the latest ones
-- ARGV[1]  the channel on which daemons listen
-- ARGV[2]  how many changes are kept
-- ARGV[3]  entry name
-- ARGV[4]  its table, JSON
--
-- Returns {what, revision}; what is 0 when it was there like that (nothing is written), 1 when it was there with another
-- table, 2 when it is new.

local before = redis.call('HGET', KEYS[1], ARGV[3])
if before == ARGV[4] then
  return {0, tonumber(redis.call('GET', KEYS[2]) or '0')}
end
local revision = redis.call('INCR', KEYS[2])
redis.call('ZADD', KEYS[3], revision, ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -ARGV[2] - 1)
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
redis.call('PUBLISH', ARGV[1], 'changed')
return {before and 1 or 2, revision}
