-- Changes of runtime entries and pauses since a revision.
--
-- KEYS[1]  schedules  hash    entry name -> its table, JSON
-- KEYS[2]  paused     hash    entry name -> {"since", "by", "reason"}, JSON
-- KEYS[3]  revision   hash    number: of changes so far; began: when the first was made (µs)
-- KEYS[4]  changes    zset    entry name -> revision of its last change, the latest ones
-- ARGV[1]  revision of the caller
-- ARGV[2]  instant at which these numbers began, as the caller knows it
-- ARGV[3]  number of changes that are kept
-- ARGV[4]  bytes of tables and pauses to return at most
--
-- Returns {number, began, number of entries, number of pauses, name, table or nil, pause or nil, name, …}; in place of
-- a table or pause that does not fit any more, a number: runtime_read.lua reads it. No names are returned to a caller
-- who is further behind than changes are kept, ahead, or has numbers of another beginning: it has to read everything.
-- Error CORRUPT when the revision is not a number.

local number, began = unpack(redis.call('HMGET', KEYS[3], 'number', 'began'))
number, began = tonumber(number or '0'), began or ''
if not number then
  return corrupt(KEYS[3])
end
local found = {number, began, redis.call('HLEN', KEYS[1]), redis.call('HLEN', KEYS[2])}
local spare = tonumber(ARGV[4])

local function value_of(key, name)
  if spare == 0 then
    return 0
  end
  local value = redis.call('HGET', key, name)
  if value and #value > spare then
    spare = 0
    return 0
  end
  spare = spare - (value and #value or 0)
  return value
end

local behind = number - tonumber(ARGV[1])
if (began == ARGV[2] or ARGV[1] == '0') and behind > 0 and behind <= tonumber(ARGV[3]) then
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[1], '+inf')) do
    found[#found + 1] = name
    found[#found + 1] = value_of(KEYS[1], name)
    found[#found + 1] = value_of(KEYS[2], name)
  end
end
return found
