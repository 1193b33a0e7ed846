-- Read the state of entries; begin it for those that are new, changed, or resumed.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  last due  hash    entry name -> ms
-- KEYS[3]  known     hash    entry name -> "<first seen ms> <fingerprint>"
-- KEYS[4]  runs      hash    entry name -> number of runs sent
-- KEYS[5]  gaps      hash    entry name -> "<after> <before> <after> <before> …" (ms), see pass_over.lua
-- KEYS[6]  claims    string  number of calls that wrote something, of this script and of claim.lua
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  now (ms)
-- ARGV[3]  how long gaps are kept (ms)
-- ARGV[4…] name, fingerprint; name, fingerprint; …   (the fingerprint of an entry that is not enabled begins "off ")
--
-- Returns KEYS[6], and where it goes on (ms), first seen (ms), runs for each entry, in their order; error FENCED when
-- the term is over. What cannot be read is returned as it is, in its place, and nothing of that entry is written. An entry goes on after its last due. A new, changed or resumed one goes on from now: the past of a schedule that
-- was not in force is never caught up. One that is resumed keeps its phase.
--
-- Last due never moves back, so that no run is ever claimed twice. If it lies in the future, because a clock was ahead
-- when it was claimed, the entry goes on in the first gap that is not over: its runs were passed over by that clock.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end

local function schedule_of(fingerprint)
  return fingerprint and string.gsub(fingerprint, '^off ', '')
end

local now, keep = ARGV[2], ARGV[3]

local function gaps_of(name)
  local gaps = {}
  for number in string.gmatch(redis.call('HGET', KEYS[5], name) or '', '%d+') do
    gaps[#gaps + 1] = number
  end
  return gaps
end

local function store_gaps(name, gaps)
  redis.call('HSET', KEYS[5], name, table.concat(gaps, ' '))
  redis.call('PEXPIRE', KEYS[5], keep)
end

-- Where an entry goes on whose last due lies in the future. ``began`` says that nothing before now is to be made.
local function behind(name, last_due, first_seen, began)
  local gaps = gaps_of(name)
  for i = 1, #gaps, 2 do
    if tonumber(gaps[i + 1]) > tonumber(now) then
      if began and tonumber(gaps[i]) < tonumber(now) then
        gaps[i] = now
        store_gaps(name, gaps)
      end
      return gaps[i]
    end
  end
  if tonumber(first_seen) > tonumber(now) then -- before it was seen, nothing was claimed
    store_gaps(name, {now, first_seen, unpack(gaps)})
    return now
  end
  return last_due
end

local states, wrote = {}, false
for i = 4, #ARGV, 2 do
  local name, fingerprint = ARGV[i], ARGV[i + 1]
  local last_due = redis.call('HGET', KEYS[2], name)
  local known = redis.call('HGET', KEYS[3], name)
  local first_seen, known_fingerprint
  if known then
    first_seen, known_fingerprint = string.match(known, '^(%d+) (.*)$')
  end
  local goes_on = last_due
  local readable = (first_seen or not known) and (not last_due or tonumber(last_due))
  local began = readable and (known_fingerprint ~= fingerprint or not last_due)
  if readable and last_due and tonumber(last_due) > tonumber(now) then
    goes_on = behind(name, last_due, first_seen or now, began)
  elseif began then
    if last_due and last_due ~= now then
      local gaps = gaps_of(name)
      gaps[#gaps + 1], gaps[#gaps + 2] = last_due, now
      store_gaps(name, {unpack(gaps, math.max(1, #gaps - 15))})
    end
    goes_on = now
    redis.call('HSET', KEYS[2], name, now)
  end
  if began then
    if schedule_of(known_fingerprint) ~= schedule_of(fingerprint) or not last_due then
      first_seen = now
    end
    redis.call('HSET', KEYS[3], name, first_seen .. ' ' .. fingerprint)
    wrote = true
  end
  states[#states + 1] = goes_on or ''
  states[#states + 1] = first_seen or known or ''
  states[#states + 1] = redis.call('HGET', KEYS[4], name) or '0'
end
table.insert(states, 1, wrote and redis.call('INCR', KEYS[6]) or redis.call('GET', KEYS[6]) or '0')
return states
