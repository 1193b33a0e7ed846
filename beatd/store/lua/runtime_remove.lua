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

if redis.call('HDEL', KEYS[1], ARGV[3]) == 0 then
  return 0
end
redis.call('ZADD', KEYS[3], next_revision(KEYS[2]), ARGV[3])
announce_changes(KEYS[3], ARGV[2], ARGV[1])
return 1
