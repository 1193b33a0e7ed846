-- Pause entries. One that is paused already keeps its note.
--
-- KEYS[1]  paused    hash    entry name -> {"since", "by", "reason", "until"}, JSON
-- KEYS[2]  revision  hash    number: of changes so far; began: when the first was made (µs)
-- KEYS[3]  changes   zset    entry name -> revision of its last change, the latest ones
-- ARGV[1]  notification channel of daemons
-- ARGV[2]  number of changes to keep
-- ARGV[3]  note, JSON
-- ARGV[4…] entry names
--
-- Returns the numbers (from 0) of the names that were not paused before.

local paused = {}
for i = 4, #ARGV do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[3]) == 1 then
    redis.call('ZADD', KEYS[3], next_revision(KEYS[2]), ARGV[i])
    paused[#paused + 1] = i - 4
  end
end
if #paused > 0 then
  announce_changes(KEYS[3], ARGV[2], ARGV[1])
end
return paused
