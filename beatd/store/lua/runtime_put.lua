-- Store a runtime entry, or replace it, and notify the daemons.
--
-- KEYS[1]  schedules  hash    entry name -> its table, JSON
-- KEYS[2]  revision   hash    number: of changes so far; began: when the first was made (µs)
-- KEYS[3]  changes    zset    entry name -> revision of its last change, the latest ones
-- ARGV[1]  notification channel of daemons
-- ARGV[2]  number of changes to keep
-- ARGV[3]  entry name
-- ARGV[4]  its table, JSON
--
-- Returns {0} when it was stored like that (nothing is written), {1, the table before} when it replaced another one,
-- {2} when it is new.

local before = redis.call('HGET', KEYS[1], ARGV[3])
if before == ARGV[4] then
  return {0}
end
redis.call('ZADD', KEYS[3], next_revision(KEYS[2]), ARGV[3])
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
announce_changes(KEYS[3], ARGV[2], ARGV[1])
return before and {1, before} or {2}
