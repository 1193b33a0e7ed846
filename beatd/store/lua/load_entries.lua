-- Load the state of entries, and begin it for entries that are new, changed, or resumed.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  last due  hash    entry name -> ms
-- KEYS[3]  known     hash    entry name -> "<first seen ms> <fingerprint>"
-- KEYS[4]  runs      hash    entry name -> number of runs sent
-- KEYS[5]  gaps      hash    entry name -> "<after> <before> <after> <before> …" (ms), see pass_over.lua
-- KEYS[6]  claims    string  number of entries that were begun here, and of runs that claim.lua claimed
-- KEYS[7]  limits    hash    entry name -> "<start> <end> <max_runs>" (ms; "-": none), as it was last loaded
-- ARGV[1]  value that the lease must have
-- ARGV[2]  now (ms)
-- ARGV[3]  how long gaps are kept (ms)
-- ARGV[4]  KEYS[6] as the caller was last told; 0: it knows none
-- ARGV[5]  JSON [name, fingerprint, name, fingerprint, …]   (the fingerprint of a disabled entry begins with "off ")
-- ARGV[6]  JSON {name: limits as in KEYS[7], …}, of those of these entries that have any
--
-- Returns KEYS[6] and "<resume point, ms> <first seen, ms> <runs>,…" of all entries, in their order: one text, as a
-- schedule may have a million. Of an entry whose state cannot be read nothing is written; its place there is empty, and
-- a list with the three values, as far as they were read, and its gaps if they are the reason, is among those that
-- follow. Errors: FENCED when the term is over, CORRUPT when KEYS[6] is no number, ROLLBACK when it is smaller than the
-- caller was told.
--
-- Resume point: an entry goes on after its last due. A new, changed or resumed one goes on from now: the past of a
-- schedule that was not in force is never caught up. One that is resumed keeps its phase. Likewise, one whose limits
-- have changed goes on from now if they had let it run no more, and from its old start if that came after its last due.
-- Limits that were never noted, as by an older version, had let it run.
--
-- Last due never moves back, so that no run is ever claimed twice. If it lies in the future, because a clock was ahead
-- when it was claimed, the entry goes on in the first gap that is not over: its runs were passed over by that clock.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end
local claimed, unusable = claims_count(KEYS[6], tonumber(ARGV[4]))
if unusable then
  return unusable
end

local now, keep = ARGV[2], ARGV[3]

-- Gaps matter only after a clock was ahead: where KEYS[5] cannot be used, entries go on without any.
local number_of_gaps = redis.pcall('HLEN', KEYS[5])
local gaps_usable = type(number_of_gaps) == 'number'
local any_gaps = gaps_usable and number_of_gaps > 0

local function schedule_of(fingerprint)
  return fingerprint and string.gsub(fingerprint, '^off ', '')
end

-- End of a gap that includes `ms`: a run that is due at that instant was not made either.
local function including(ms)
  return string.format('%.0f', tonumber(ms) + 1)
end

-- Limits matter only for those that have or had some: where KEYS[7] cannot be used, entries go on without any.
local number_of_limits = redis.pcall('HLEN', KEYS[7])
local limits_usable = type(number_of_limits) == 'number'
local any_limits = limits_usable and number_of_limits > 0
local limits_of = cjson.decode(ARGV[6])

-- Until when an entry could not run by the limits `noted` of it; nil if that is no later than last due.
local function kept_from_running_until(noted, last_due, runs)
  local start, stop, max_runs = string.match(noted, '^(%S+) (%S+) (%S+)$')
  start, stop, max_runs = to_number(start), to_number(stop), to_number(max_runs)
  if (stop and stop < tonumber(now)) or (max_runs and tonumber(runs) >= max_runs) then
    return now
  elseif start and start - 1 > tonumber(last_due) then
    return start > tonumber(now) and now or string.format('%.0f', start - 1)
  end
end

local function note_limits(name, limits)
  if limits then
    redis.call('HSET', KEYS[7], name, limits)
  else
    redis.call('HDEL', KEYS[7], name)
  end
end

local function write_gaps(name, gaps)
  if gaps_usable then
    store_gaps(KEYS[5], name, gaps)
    live_at_least(KEYS[5], tonumber(keep))
  end
end

-- Remove gaps after last due: nothing there has been claimed, and such a gap, of a clock's jump that led to no claim,
-- would later hide that it was.
local function drop_gaps_after(name, gaps, last_due)
  local kept = {}
  for i = 1, #gaps, 2 do
    if tonumber(gaps[i]) < tonumber(last_due) then
      kept[#kept + 1], kept[#kept + 2] = gaps[i], gaps[i + 1]
    end
  end
  if #kept < #gaps then
    write_gaps(name, kept)
  end
  return kept
end

-- Let no gap reach beyond now: one that ends with the next run of a schedule would cover runs of another one, which are
-- claimed then.
local function end_gaps(name, gaps)
  local changed = false
  for i = 2, #gaps, 2 do
    if tonumber(gaps[i]) > tonumber(now) + 1 then
      gaps[i], changed = including(now), true
    end
  end
  if changed then
    write_gaps(name, gaps)
  end
end

-- Index of the gap that is not over at `now` and ends first; nil when there is none.
local function open_gap(gaps)
  local first
  for i = 1, #gaps, 2 do
    local before = tonumber(gaps[i + 1])
    if before > tonumber(now) and not (first and tonumber(gaps[first + 1]) < before) then
      first = i
    end
  end
  return first
end

-- Resume point of an entry whose last due lies in the future, because a clock was ahead. `began`: the entry is new,
-- changed or resumed, or was kept from running, so nothing before now is to be made.
--
-- Example 1: every 10 s. The clock jumped from 1000 to 5000; pass_over.lua noted the gap "1000 4990", and the run of
-- 4990 was claimed. The clock is set right. At 1010 last due is 4990, the open gap is (1000, 4990), and the entry goes
-- on after 1000: the run of 1010 is claimed out of the gap, which becomes "1010 4990". The run of 4990 is not repeated.
-- Example 2: as 1, and the entry was changed meanwhile. The gap is split into "1000 1011" and "1010 4990", and the
-- entry goes on after 1010.
-- Example 3: the entry was first seen while the clock was at 5000, so first seen and last due are 5000. The clock is
-- set right; now is 1000. There is no gap, so "0 5001" is noted: before 5000 nothing was claimed. It is split into
-- "0 1001" and "1000 5001", and the entry goes on after 1000.
local function resume_point_behind(name, gaps, last_due, first_seen, began)
  local open = open_gap(gaps)
  local is_later = not open or tonumber(gaps[open]) >= tonumber(first_seen)
  if is_later and tonumber(first_seen) > tonumber(now) and gaps[1] ~= '0' and #gaps < GAPS_MAX then
    gaps, open = {'0', including(first_seen), unpack(gaps)}, 1 -- noted once, and first
  end
  if not open then
    return last_due
  end
  local after = gaps[open]
  if (began or after == '0') and tonumber(after) < tonumber(now) then
    add_gap(gaps, now, gaps[open + 1])
    gaps[open + 1] = including(now) -- stays open in case the clock is set back further
    after = now
    write_gaps(name, gaps)
  end
  live_at_least(KEYS[5], tonumber(keep) + tonumber(last_due) - tonumber(now)) -- without it nothing is sent until then
  return after
end

-- Load one entry; returns resume point, first seen, runs, whether its state was begun, and what cannot be read of it.
local function load_entry(name, fingerprint)
  local last_due = redis.call('HGET', KEYS[2], name)
  local known = redis.call('HGET', KEYS[3], name)
  local runs = redis.call('HGET', KEYS[4], name) or '0'
  local first_seen, known_fingerprint
  if known then
    first_seen, known_fingerprint = string.match(known, '^(%d+) (.*)$')
  end
  local is_readable = (not known or to_number(first_seen)) and (not last_due or to_number(last_due)) and to_number(runs)
  if not is_readable then
    return nil, nil, nil, false, {last_due or '', first_seen or known or '', runs, ''}
  end
  local stored_gaps = any_gaps and redis.call('HGET', KEYS[5], name) or ''
  local gaps = parse_gaps(stored_gaps)
  if not gaps then
    return nil, nil, nil, false, {last_due or '', first_seen or '', runs, stored_gaps}
  end
  if last_due then
    gaps = drop_gaps_after(name, gaps, last_due)
  end
  local is_another = known_fingerprint ~= fingerprint or not last_due
  local limits, noted_limits = limits_of[name], any_limits and redis.call('HGET', KEYS[7], name) or nil
  local begins = is_another and now or nil
  if limits ~= noted_limits and limits_usable then
    begins = begins or noted_limits and kept_from_running_until(noted_limits, last_due, runs) or nil
    note_limits(name, limits)
  end
  local began, resume_point = begins ~= nil, last_due
  if last_due and tonumber(last_due) > tonumber(now) then
    resume_point = resume_point_behind(name, gaps, last_due, first_seen or now, began)
  elseif began then
    end_gaps(name, gaps)
    if last_due and last_due ~= begins then
      add_gap(gaps, last_due, including(begins))
      write_gaps(name, gaps)
    end
    resume_point = begins
    redis.call('HSET', KEYS[2], name, begins)
  end
  if is_another then
    if schedule_of(known_fingerprint) ~= schedule_of(fingerprint) or not last_due then
      first_seen = now
    end
    redis.call('HSET', KEYS[3], name, first_seen .. ' ' .. fingerprint)
  end
  return resume_point, first_seen, runs, began
end

local answer, states, count = {claimed, ''}, {}, 0
local entries = cjson.decode(ARGV[5])
for i = 1, #entries, 2 do
  local resume_point, first_seen, runs, began, unreadable = load_entry(entries[i], entries[i + 1])
  if unreadable then
    answer[#answer + 1] = unreadable
    states[#states + 1] = ''
  else
    states[#states + 1] = resume_point .. ' ' .. first_seen .. ' ' .. runs
  end
  if began then
    count = count + 1
  end
end
answer[2] = table.concat(states, ',')
if count > 0 then
  answer[1] = redis.call('INCRBY', KEYS[6], count)
end
return answer
