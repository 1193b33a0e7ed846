-- Resume paused entries. Each goes on from now, also when no leader has noticed that it was paused: the past of an
-- entry that was not in force is never caught up, and the leader sees by its fingerprint that it was not.
--
-- KEYS[1]  paused    hash    entry name -> {"since", "by", "reason", "until"}, JSON
-- KEYS[2]  revision  hash    number: of changes so far; began: when the first was made (µs)
-- KEYS[3]  changes   zset    entry name -> revision of its last change, the latest ones
-- KEYS[4]  known     hash    entry name -> "<first seen ms> <fingerprint>", "off " before it: not in force
-- ARGV[1]  notification channel of daemons
-- ARGV[2]  number of changes to keep
-- ARGV[3]  "all", or "ended": only those whose pause is over
-- ARGV[4…] entry names
--
-- Returns the numbers (from 0) of the names that were paused.

local now_ms = now_by_server()

local function is_over(name)
  local readable, note = pcall(cjson.decode, redis.call('HGET', KEYS[1], name) or '')
  return readable and type(note) == 'table' and type(note['until']) == 'number' and note['until'] <= now_ms
end

local resumed = {}
for i = 4, #ARGV do
  if (ARGV[3] == 'all' or is_over(ARGV[i])) and redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    mark_off(KEYS[4], ARGV[i])
    redis.call('ZADD', KEYS[3], next_revision(KEYS[2]), ARGV[i])
    resumed[#resumed + 1] = i - 4
  end
end
if #resumed > 0 then
  announce_changes(KEYS[3], ARGV[2], ARGV[1])
end
return resumed
