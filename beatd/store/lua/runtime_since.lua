-- What has changed of the runtime entries and pauses since a revision.
--
-- KEYS[1]  schedules  hash    entry name -> its table, JSON
-- KEYS[2]  paused     hash    entry name -> {"since", "by", "reason"}, JSON
-- KEYS[3]  revision   string  number of changes so far
-- KEYS[4]  changes    zset    entry name -> revision of its last change, the latest ones
-- ARGV[1]  the revision that the caller has
-- ARGV[2]  how many changes are kept
--
-- Returns {revision, number of entries, number of pauses, name, table or nil, pause or nil, name, …}. No names are given
-- to a caller who is further behind than changes are kept, or ahead: it has to read everything.
-- Error CORRUPT when the revision is not a number.

local revision = tonumber(redis.call('GET', KEYS[3]) or '0')
if not revision then
  return redis.error_reply('CORRUPT key ' .. KEYS[3] .. ' does not hold a number')
end
local found = {revision, redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[2])}
local behind = revision - tonumber(ARGV[1])
if behind > 0 and behind <= tonumber(ARGV[2]) then
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[1], '+inf')) do
    found[#found + 1] = name
    found[#found + 1] = redis.call('HGET', KEYS[1], name)
    found[#found + 1] = redis.call('HGET', KEYS[2], name)
  end
end
return found
