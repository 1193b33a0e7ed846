-- Remove a runtime entry, and notify the daemons. A pause stays: an entry of that name may come from elsewhere.
--
-- KEYS[1]  schedules  hash    entry name -> its table, JSON
-- KEYS[2]  revision   hash    number: of changes so far; began: when the first was made (µs)
-- KEYS[3]  changes    zset    entry name -> revision of its last change, the latest ones
-- ARGV[1]  notification channel of daemons
-- ARGV[2]  number of changes to keep
-- ARGV[3]  entry name
--
-- Returns 1 when it was there, else 0.

if redis.call('HDEL', KEYS[1], ARGV[3]) == 0 then
  return 0
end
redis.call('ZADD', KEYS[3], next_revision(KEYS[2]), ARGV[3])
announce_changes(KEYS[3], ARGV[2], ARGV[1])
return 1
