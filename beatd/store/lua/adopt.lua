-- Read the state of entries; begin it for those that are new, changed, or resumed.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  last due  hash    entry name -> ms
-- KEYS[3]  known     hash    entry name -> "<first seen ms> <fingerprint>"
-- KEYS[4]  runs      hash    entry name -> number of runs sent
-- KEYS[5]  gaps      hash    entry name -> "<after> <before> <after> <before> …" (ms), see pass_over.lua
-- KEYS[6]  claims    string  number of entries that were begun here, and of runs that claim.lua claimed
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  now (ms)
-- ARGV[3]  how long gaps are kept (ms)
-- ARGV[4…] name, fingerprint; name, fingerprint; …   (the fingerprint of an entry that is not enabled begins "off ")
--
-- Returns KEYS[6], and where it goes on (ms), first seen (ms), runs for each entry, in their order. Error FENCED when
-- the term is over, CORRUPT when KEYS[6] is no number. What cannot be read is returned as it is, in its place, and nothing of that entry is written.
-- Instead of where an entry goes on, "gaps <what is there>" says that its gaps cannot be read.
-- An entry goes on after its last due. A new, changed or resumed one goes on from now: the past of a schedule that was
-- not in force is never caught up. One that is resumed keeps its phase.
--
-- Last due never moves back, so that no run is ever claimed twice. If it lies in the future, because a clock was ahead
-- when it was claimed, the entry goes on in the first gap that is not over: its runs were passed over by that clock.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end
local claimed = tonumber(redis.call('GET', KEYS[6]) or '0')
if not claimed then
  return redis.error_reply('CORRUPT key ' .. KEYS[6] .. ' does not hold a number')
end

local function schedule_of(fingerprint)
  return fingerprint and string.gsub(fingerprint, '^off ', '')
end

local now, keep = ARGV[2], ARGV[3]

-- Gaps matter only after a clock was ahead: where KEYS[5] cannot be used, entries go on without any.
local number_of_gaps = redis.pcall('HLEN', KEYS[5])
local gaps_usable = type(number_of_gaps) == 'number'
local any_gaps = gaps_usable and number_of_gaps > 0

local MOST = 16 -- numbers, two for each gap

-- A moment from which on an entry was in force: the run that is due at it was not made either.
local function up_to(ms)
  return string.format('%.0f', tonumber(ms) + 1)
end

local function is_number(text)
  return string.find(text, '^%d+$') and #text <= 15
end

-- Nil when the field holds something else than pairs of instants.
local function gaps_of(name)
  local gaps = {}
  for word in string.gmatch(any_gaps and redis.call('HGET', KEYS[5], name) or '', '[^ ]+') do
    if not is_number(word) then
      return nil
    end
    gaps[#gaps + 1] = word
  end
  return #gaps % 2 == 0 and gaps or nil
end

local function store_gaps(name, gaps)
  if not gaps_usable then
    return
  end
  any_gaps = true
  while #gaps > MOST do -- the oldest goes, but for what says that there was a time before
    local oldest = gaps[1] == '0' and 3 or 1
    table.remove(gaps, oldest)
    table.remove(gaps, oldest)
  end
  redis.call('HSET', KEYS[5], name, table.concat(gaps, ' '))
  redis.call('PEXPIRE', KEYS[5], keep)
end

-- Nothing after last due has been claimed: a gap there, of a jump that led to no claim, would later hide that it was.
local function drop_gaps_after(name, last_due)
  local kept, gaps = {}, gaps_of(name)
  for i = 1, #gaps, 2 do
    if tonumber(gaps[i]) < tonumber(last_due) then
      kept[#kept + 1], kept[#kept + 2] = gaps[i], gaps[i + 1]
    end
  end
  if #kept < #gaps then
    store_gaps(name, kept)
  end
end

-- Where an entry goes on whose last due lies in the future: in the earliest gap that is not over.
-- ``began`` says that nothing before now is to be made.
local function behind(name, last_due, first_seen, began)
  local gaps, found = gaps_of(name), nil
  for i = 1, #gaps, 2 do
    if tonumber(gaps[i + 1]) > tonumber(now) and not (found and tonumber(gaps[found + 1]) < tonumber(gaps[i + 1])) then
      found = i
    end
  end
  local later = not found or tonumber(gaps[found]) >= tonumber(first_seen)
  if later and tonumber(first_seen) > tonumber(now) and gaps[1] ~= '0' and #gaps < MOST then
    -- nothing was claimed before it was first seen; that is noted once, and first
    gaps, found = {'0', up_to(first_seen), unpack(gaps)}, 1
  end
  if not found then
    return last_due
  end
  local goes_on = gaps[found]
  if (began or goes_on == '0') and tonumber(goes_on) < tonumber(now) then
    gaps[#gaps + 1], gaps[#gaps + 2] = now, gaps[found + 1]
    gaps[found + 1] = up_to(now) -- still open, should the clock be set back further
    goes_on = now
    store_gaps(name, gaps)
  end
  return goes_on
end

local states, count = {}, 0
for i = 4, #ARGV, 2 do
  local name, fingerprint = ARGV[i], ARGV[i + 1]
  local last_due = redis.call('HGET', KEYS[2], name)
  local known = redis.call('HGET', KEYS[3], name)
  local runs = redis.call('HGET', KEYS[4], name) or '0'
  local first_seen, known_fingerprint
  if known then
    first_seen, known_fingerprint = string.match(known, '^(%d+) (.*)$')
  end
  local goes_on = last_due
  local readable = (not known or first_seen and is_number(first_seen)) and (not last_due or is_number(last_due))
  readable = readable and is_number(runs)
  if readable and any_gaps and not gaps_of(name) then
    readable, goes_on = false, 'gaps ' .. redis.call('HGET', KEYS[5], name)
  end
  if readable and any_gaps and last_due then
    drop_gaps_after(name, last_due)
  end
  local began = readable and (known_fingerprint ~= fingerprint or not last_due)
  if readable and last_due and tonumber(last_due) > tonumber(now) then
    goes_on = behind(name, last_due, first_seen or now, began)
  elseif began then
    if last_due and last_due ~= now then
      local gaps = gaps_of(name)
      gaps[#gaps + 1], gaps[#gaps + 2] = last_due, up_to(now)
      store_gaps(name, gaps)
    end
    goes_on = now
    redis.call('HSET', KEYS[2], name, now)
  end
  if began then
    if schedule_of(known_fingerprint) ~= schedule_of(fingerprint) or not last_due then
      first_seen = now
    end
    redis.call('HSET', KEYS[3], name, first_seen .. ' ' .. fingerprint)
    count = count + 1
  end
  states[#states + 1] = goes_on or ''
  states[#states + 1] = first_seen or known or ''
  states[#states + 1] = runs
end
table.insert(states, 1, count > 0 and redis.call('INCRBY', KEYS[6], count) or claimed)
return states
