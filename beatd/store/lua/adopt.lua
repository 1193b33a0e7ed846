-- Read the state of entries; begin it for those that are new, changed, or resumed.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  last due  hash    entry name -> ms
-- KEYS[3]  known     hash    entry name -> "<first seen ms> <fingerprint>"
-- KEYS[4]  runs      hash    entry name -> number of runs sent
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  now (ms)
-- ARGV[3…] name, fingerprint; name, fingerprint; …   (the fingerprint of an entry that is not enabled begins "off ")
--
-- Returns last due (ms), first seen (ms), runs for each entry, in their order; error FENCED when the term is over.
-- A new, changed or resumed entry goes on from now: the past of a schedule that was not in force is never caught up.
-- One that is resumed keeps its phase. Last due never moves back, so that no run is ever claimed twice.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end

local function schedule_of(fingerprint)
  return fingerprint and string.gsub(fingerprint, '^off ', '')
end

local now = ARGV[2]
local states = {}
for i = 3, #ARGV, 2 do
  local name, fingerprint = ARGV[i], ARGV[i + 1]
  local last_due = redis.call('HGET', KEYS[2], name)
  local known = redis.call('HGET', KEYS[3], name)
  local first_seen, known_fingerprint
  if known then
    first_seen, known_fingerprint = string.match(known, '^(%d+) (.*)$')
  end
  if known_fingerprint ~= fingerprint or not last_due then
    if schedule_of(known_fingerprint) ~= schedule_of(fingerprint) or not last_due then
      first_seen = now
    end
    if not last_due or tonumber(last_due) < tonumber(now) then
      last_due = now
    end
    redis.call('HSET', KEYS[3], name, first_seen .. ' ' .. fingerprint)
    redis.call('HSET', KEYS[2], name, last_due)
  end
  states[#states + 1] = last_due
  states[#states + 1] = first_seen
  states[#states + 1] = redis.call('HGET', KEYS[4], name) or '0'
end
return states
