-- Take an entry out of the store. That it is paused stays: an entry of that name may come from elsewhere.
--
-- KEYS[1]  schedules  hash    entry name -> its table, JSON
-- KEYS[2]  revision   hash    number: of changes so far; began: when the first was made (µs)
-- KEYS[3]  changes    zset    entry name -> revision of its last change, the latest ones
-- ARGV[1]  the channel on which daemons listen
-- ARGV[2]  how many changes are kept
-- ARGV[3]  entry name
--
-- Returns 1 when it was there.

-- The next revision. The first has a moment, too: numbers begin anew when the store was flushed.
local function next_revision()
  local number = redis.call('HINCRBY', KEYS[2], 'number', 1)
  if number == 1 then
    local time = redis.call('TIME')
    redis.call('HSET', KEYS[2], 'began', time[1] .. string.format('%06d', time[2]))
  end
  return number
end

if redis.call('HDEL', KEYS[1], ARGV[3]) == 0 then
  return 0
end
redis.call('ZADD', KEYS[3], next_revision(), ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -ARGV[2] - 1)
redis.call('PUBLISH', ARGV[1], 'changed')
return 1
