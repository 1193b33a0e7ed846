-- Claim runs and push their messages, all in one step.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  last due  hash    entry name -> ms
-- KEYS[3]  runs      hash    entry name -> number of runs sent
-- KEYS[4]  running   hash    entry name -> "<run id> <ms until which it may run>"
-- KEYS[5]  gaps      hash    entry name -> "<after> <before> <after> <before> …" (ms), see pass_over.lua
-- KEYS[6]  claims    string  number of runs that were claimed, and of entries that load_entries.lua began
-- KEYS[7]  tally     hash    entry name -> "<word> <number> <word> <number> …": runs that were late, skipped …
-- KEYS[8]  history   string  an entry's cells are in the key of this name and its own: 20 bytes each, the newest last
-- ARGV[1]  value that the lease must have
-- ARGV[2]  number in KEYS[6] that the caller was last told
-- ARGV[3]  bytes of history to keep for each entry (0: none is written)
-- ARGV[4…] groups of runs; first what the runs of a group have in common:
--          number of runs
--          due (ms)
--          key of the list to push to; empty: nothing is sent. Lists are not in KEYS: a server refuses a call as a
--          whole when its user may not use one of those
--          cell of history; empty: none
--          word under which the runs are counted in KEYS[7]; empty: none
--          number of arguments for each run: 2 or 3
--        then for each run:
--          entry name
--          message
--          value for KEYS[4]; left out: the entries allow overlaps. Of runs that are not sent, any value says that each
--          is dropped with the run before it of its entry in this call: it is left out if that one is
--
-- Returns {KEYS[6], left out, refused, refused, …}. "Left out": numbers (from 0) of runs that had been claimed before:
-- their due is not after last due, and in no gap. "Refused": a reason, the key that it is about, and the numbers of
-- runs for which nothing was written: their queue is no list or may not be written to, or a field of their entry cannot
-- be read. If one run of an entry is refused, all of its runs in this call are.
-- Errors, after which nothing is claimed:
--   FENCED    the term is over
--   ROLLBACK  the server lost writes that it had confirmed: the last ones, or all
--   CORRUPT   KEYS[6] is no number
-- Without runs it only finds these errors, and tries the keys that all runs need.
-- Runs of one entry must come in the order of their due times; messages reach a queue in the order given.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end
local claimed, unusable = claims_count(KEYS[6], tonumber(ARGV[2]))
if unusable then
  return unusable
end
if #ARGV == 3 then
  redis.call('HLEN', KEYS[2])
  redis.call('HLEN', KEYS[3])
  return {redis.call('INCRBY', KEYS[6], 0), {}}
end

local names, place, group_of = {}, {}, {} -- by number of the run, from 1; place: index of its name in ARGV
local at = 4
while at <= #ARGV do
  local group = {due = ARGV[at + 1], queue = ARGV[at + 2], cell = ARGV[at + 3], word = ARGV[at + 4]}
  local size, first = tonumber(ARGV[at + 5]), at + 6
  group.due_ms, group.has_value = tonumber(group.due), size == 3
  at = first + size * tonumber(ARGV[at])
  for run = first, at - 1, size do
    local n = #names + 1
    names[n], place[n], group_of[n] = ARGV[run], run, group
  end
end

-- DECIDE: which runs are taken, and what is to be written for them. Nothing is written yet.

local last, count = {}, {} -- by number of the run: last due (ms) and runs of its entry after it
local newest = {} -- entry name -> number of its newest run in this call
local running, gaps = {}, {} -- entry name -> new field of KEYS[4], KEYS[5]
local pushes = {} -- queue -> numbers of runs, from 1
local is_taken, taken, left_out = {}, 0, {} -- is_taken: by number of the run
local was_left_out = {} -- entry name -> true: a run of it in this call
local refused = {} -- entry name -> {reason, key}

local function refuse(name, reason, key)
  refused[name] = {reason, key}
end

-- A run that is not after last due is taken if it is in a gap; the gap then begins after it.
local function take_from_gap(name, due)
  local stored = gaps[name] or redis.pcall('HGET', KEYS[5], name) or ''
  if type(stored) == 'table' then
    refuse(name, stored.err, KEYS[5])
    return false
  end
  local bounds, found = parse_gaps(stored), false
  if not bounds then
    refuse(name, 'the field ' .. name .. ' does not hold pairs of numbers', KEYS[5])
    return false
  end
  for i = 1, #bounds, 2 do
    if bounds[i] ~= '0' and tonumber(bounds[i]) < tonumber(due) and tonumber(due) < tonumber(bounds[i + 1]) then
      bounds[i], found = due, true
    end
  end
  if found then
    gaps[name] = table.concat(bounds, ' ')
  end
  return found
end

-- Number in a field, 0 if there is none; false for anything else. Runs of a herd have most of theirs in common.
local known = {[false] = 0}
local function number_in(field)
  local number = known[field]
  if number == nil then
    number = to_number(field) or false
    known[field] = number
  end
  return number
end

local stored_due = redis.call('HMGET', KEYS[2], unpack(names))
local stored_runs = redis.call('HMGET', KEYS[3], unpack(names))

for n, name in ipairs(names) do
  local group, before = group_of[n], newest[name]
  local last_due = before and last[before] or number_in(stored_due[n])
  local runs = before and count[before] or number_in(stored_runs[n])
  newest[name] = n
  if not (last_due and runs) then
    refuse(name, 'the field ' .. name .. ' does not hold a number', last_due and KEYS[3] or KEYS[2])
  elseif group.queue == '' and group.has_value and was_left_out[name] then
    left_out[#left_out + 1] = n - 1
  elseif not refused[name] then
    local is_new = last_due < group.due_ms
    if is_new or take_from_gap(name, group.due) then
      is_taken[n], taken = true, taken + 1
      last_due = is_new and group.due_ms or last_due
      local queue = group.queue
      if queue ~= '' then
        runs = runs + 1
        if group.has_value then
          running[name] = ARGV[place[n] + 2]
        end
        local numbers = pushes[queue]
        if not numbers then
          numbers = {}
          pushes[queue] = numbers
        end
        numbers[#numbers + 1] = n
      end
    elseif not refused[name] then
      left_out[#left_out + 1], was_left_out[name] = n - 1, true
    end
  end
  last[n], count[n] = last_due, runs
end

-- TRY: the server undoes nothing of a script that fails half way. So whatever may be refused is tried before a message
-- leaves (a key of a foreign type, a user without the right to write), and messages leave before they count as sent.

local function refuse_all(fields, key)
  local tried = next(fields) and redis.pcall('HLEN', key)
  if type(tried) == 'table' then
    for name in pairs(fields) do
      refuse(name, tried.err, key)
    end
  end
end

if #left_out < #names then
  refuse_all(running, KEYS[4])
  refuse_all(gaps, KEYS[5])
  if stored_due[1] and not refused[names[1]] then
    redis.call('HSET', KEYS[2], names[1], stored_due[1])
  end
  redis.call('INCRBY', KEYS[6], 0)
end

-- PUSH: the one write that may be refused for some runs and not for others; so it comes first of those that count.

for queue, numbers in pairs(pushes) do
  local pushing = {}
  for _, n in ipairs(numbers) do
    if not refused[names[n]] then
      pushing[#pushing + 1] = ARGV[place[n] + 1]
    end
  end
  local pushed = #pushing > 0 and redis.pcall('LPUSH', queue, unpack(pushing))
  if type(pushed) == 'table' then
    for _, n in ipairs(numbers) do
      refuse(names[n], pushed.err, queue)
    end
  end
end

-- A refusal concerns no other entries: its runs are removed from what is about to be written.

local refusals = {}
if next(refused) then
  local of_key = {}
  for n, name in ipairs(names) do
    local refusal = refused[name]
    if refusal then
      running[name], gaps[name] = nil, nil
      if is_taken[n] then
        is_taken[n], taken = false, taken - 1
      end
      local id = refusal[1] .. refusal[2]
      if not of_key[id] then
        of_key[id] = {refusal[1], refusal[2]}
        refusals[#refusals + 1] = of_key[id]
      end
      table.insert(of_key[id], n - 1)
    end
  end
end

-- WRITE

if taken > 0 then
  claimed = redis.call('INCRBY', KEYS[6], taken)
end
local answer = {claimed, left_out, unpack(refusals)}

-- Names and values of hashes. An entry with several runs in this call is there several times, its last run last.
local dues, numbers_of_runs = {}, {}

local function add(list, name, value)
  local size = #list
  list[size + 1] = name
  list[size + 2] = value
end

for n, name in ipairs(names) do
  if is_taken[n] then
    local group = group_of[n]
    if last[n] == group.due_ms then
      add(dues, name, group.due)
    end
    if group.queue ~= '' then
      add(numbers_of_runs, name, count[n])
    end
  end
end

local function flat(fields)
  local list = {}
  for name, value in pairs(fields) do
    add(list, name, value)
  end
  return list
end

local changed = {[2] = dues, [3] = numbers_of_runs, [4] = flat(running), [5] = flat(gaps)}
for number, fields in pairs(changed) do
  if #fields > 0 then
    redis.call('HSET', KEYS[number], unpack(fields))
  end
end

-- NOTE: history and tally, last. They are for people: an error is passed over, and no run waits for it.

local keep = tonumber(ARGV[3])
local names_counted, words = {}, {}
for n, name in ipairs(names) do
  if is_taken[n] then
    local cell, word = group_of[n].cell, group_of[n].word
    if cell ~= '' then
      append_history(KEYS[8] .. name, cell, keep)
    end
    if word ~= '' then
      names_counted[#names_counted + 1], words[#words + 1] = name, word
    end
  end
end

-- Two calls for all that is counted: one by one they would make a herd that is late even later.
if #words > 0 then
  local tallies, new = redis.pcall('HMGET', KEYS[7], unpack(names_counted)), {}
  if not tallies.err then
    for i, name in ipairs(names_counted) do
      new[name] = add_to_tally(new[name] or tallies[i] or '', words[i], 1)
    end
    redis.pcall('HSET', KEYS[7], unpack(flat(new)))
  end
end
return answer
