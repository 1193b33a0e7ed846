-- Claim runs and push their messages, all in one step.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  last due  hash    entry name -> ms
-- KEYS[3]  runs      hash    entry name -> number of runs sent
-- KEYS[4]  running   hash    entry name -> "<run id> <ms until which it may run>"
-- KEYS[5]  gaps      hash    entry name -> "<after> <before> <after> <before> …" (ms), see pass_over.lua
-- KEYS[6]  claims    string  number of runs that were claimed, and of entries that adopt.lua began
-- KEYS[7]  tally     hash    entry name -> "<word> <number> <word> <number> …", how many of its runs were late, skipped …
-- KEYS[8]  history   string  an entry's cells are in the key of this name and its own: cells of 20 bytes, the newest last
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  the number in KEYS[6] that the caller was last told
-- ARGV[3]  how many bytes of history to keep for each entry (0: none is written)
-- ARGV[4…] name, due (ms), key of the list to push to (empty: nothing is sent), message, note; name, …
--          Lists are not in KEYS: a server refuses a call as a whole when its user may not use one of those.
--          The note is the run's cell of history, the word under which it is counted besides, if any, and for KEYS[4], if
--          its entry minds overlaps, a blank and that value. It begins with a zero byte if there is no cell.
--
-- Returns {KEYS[6], left out, refused, refused, …}. "Left out" has the numbers (from 0) of the runs that had been claimed:
-- their due is not after last due, and in none of the gaps. Each "refused" has a reason, the key that it is about, and
-- the numbers of runs for which nothing was written: a queue that is no list or may not be written to, a field of their
-- entry that is no number. If one run of an entry is refused, all of its runs in this call are. In these cases an error,
-- and nothing is claimed:
--   FENCED    the term is over
--   WENTBACK  the server has forgotten writes that it had confirmed: the last ones, or all
--   CORRUPT   something that is not a number is where a number should be
-- Without runs it does nothing but find these errors, and whether the keys that all runs need can be used.
-- Runs of one entry must come in the order of their due times; messages reach a queue in the order given. History and
-- tally are written last, and what goes wrong with them is passed over: they are for people, and no run waits for them.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end
local claimed = tonumber(redis.call('GET', KEYS[6]) or '0')
if not claimed then
  return redis.error_reply('CORRUPT key ' .. KEYS[6] .. ' does not hold a number')
elseif claimed < tonumber(ARGV[2]) then
  return redis.error_reply('WENTBACK key ' .. KEYS[6] .. ' is at ' .. claimed .. ' and was at ' .. ARGV[2])
elseif #ARGV == 3 then
  redis.call('HLEN', KEYS[2])
  redis.call('HLEN', KEYS[3])
  return {redis.call('INCRBY', KEYS[6], 0), {}}
end

local names = {}
for i = 4, #ARGV, 5 do
  names[#names + 1] = ARGV[i]
end
local stored_due = redis.call('HMGET', KEYS[2], unpack(names))
local stored_runs = redis.call('HMGET', KEYS[3], unpack(names))

local last_due, runs, running, gaps, pushes, left_out, notes = {}, {}, {}, {}, {}, {}, {}
local CELL, MOST = 20, 1e15 -- a field that holds more than this is no instant, and no number of runs
local refused = {} -- entry name -> {reason, key}

-- A run that is not after last due may have been passed over and be still open; from now on what is up to it is not.
local function take_from_gap(name, due)
  local stored = gaps[name] or redis.pcall('HGET', KEYS[5], name) or ''
  if type(stored) == 'table' then
    refused[name] = {stored.err, KEYS[5]}
    return false
  end
  local bounds, found = {}, false
  for number in string.gmatch(stored, '%d+') do
    bounds[#bounds + 1] = number
  end
  for i = 1, #bounds - 1, 2 do
    if bounds[i] ~= '0' and tonumber(bounds[i]) < tonumber(due) and tonumber(due) < tonumber(bounds[i + 1]) then
      bounds[i], found = due, true
    end
  end
  if found then
    gaps[name] = table.concat(bounds, ' ')
  end
  return found
end

for n, name in ipairs(names) do
  local at = 5 * n - 1
  local due, queue = ARGV[at + 1], ARGV[at + 2]
  local last, count = tonumber(last_due[name] or stored_due[n] or '0'), runs[name] or tonumber(stored_runs[n] or '0')
  if not (last and count and last >= 0 and last < MOST and count >= 0 and count < MOST) then
    local key = last and last >= 0 and last < MOST and KEYS[3] or KEYS[2]
    refused[name] = {'CORRUPT the field ' .. name .. ' does not hold a number', key}
  elseif not refused[name] then
    local is_new = last < tonumber(due)
    if is_new then
      last_due[name] = due
    end
    if is_new or take_from_gap(name, due) then
      local note = ARGV[at + 4]
      notes[n] = note
      if queue ~= '' then
        runs[name] = count + 1
        if #note > CELL then
          running[name] = string.match(note, ' (.*)', CELL + 1)
        end
        local messages = pushes[queue]
        if not messages then
          messages = {}
          pushes[queue] = messages
        end
        messages[#messages + 1] = n
      end
    elseif not refused[name] then
      left_out[#left_out + 1] = n - 1
    end
  end
end

-- What is refused for some entries concerns no others: their runs are taken out of what is about to be written.
local function refuse(name, error, key)
  refused[name] = {error, key}
end

local function refuse_all(changed, key)
  local tried = next(changed) and redis.pcall('HLEN', key)
  if type(tried) == 'table' then
    for name in pairs(changed) do
      refuse(name, tried.err, key)
    end
  end
end

-- The server undoes nothing of a script that fails half way. So whatever may be refused is tried before a message
-- leaves (a key of a foreign type, a user without the right to write), and messages leave before they count as sent.
-- A push is the one write that may be refused for some runs and not for others; so it comes first of those that count.
if #left_out < #names then
  refuse_all(running, KEYS[4])
  refuse_all(gaps, KEYS[5])
  if stored_due[1] and not refused[names[1]] then
    redis.call('HSET', KEYS[2], names[1], stored_due[1])
  end
  redis.call('INCRBY', KEYS[6], 0)
end

for queue, numbers in pairs(pushes) do
  local messages = {}
  for _, n in ipairs(numbers) do
    if not refused[names[n]] then
      messages[#messages + 1] = ARGV[5 * n + 2]
    end
  end
  local pushed = #messages > 0 and redis.pcall('LPUSH', queue, unpack(messages))
  if type(pushed) == 'table' then
    for _, n in ipairs(numbers) do
      refuse(names[n], pushed.err, queue)
    end
  end
end

local refusals = {}
if next(refused) then
  local of_key = {}
  for n, name in ipairs(names) do
    local why = refused[name]
    if why then
      last_due[name], runs[name], running[name], gaps[name], notes[n] = nil, nil, nil, nil, nil
      local id = why[1] .. why[2]
      if not of_key[id] then
        of_key[id] = {why[1], why[2]}
        refusals[#refusals + 1] = of_key[id]
      end
      table.insert(of_key[id], n - 1)
    end
  end
end

local sent_or_skipped = 0
for _ in pairs(notes) do
  sent_or_skipped = sent_or_skipped + 1
end
if sent_or_skipped > 0 then
  claimed = redis.call('INCRBY', KEYS[6], sent_or_skipped)
end
local answer = {claimed, left_out, unpack(refusals)}

local changed = {[KEYS[2]] = last_due, [KEYS[3]] = runs, [KEYS[4]] = running, [KEYS[5]] = gaps}
for key, fields in pairs(changed) do
  local pairs_of_key = {}
  for name, value in pairs(fields) do
    pairs_of_key[#pairs_of_key + 1] = name
    pairs_of_key[#pairs_of_key + 1] = value
  end
  if #pairs_of_key > 0 then
    redis.call('HSET', key, unpack(pairs_of_key))
  end
end

-- Two calls for all that is counted: a herd that is late would otherwise be later for being counted one by one.
local function count(names_counted, words)
  local tallies, new = redis.pcall('HMGET', KEYS[7], unpack(names_counted)), {}
  if tallies.err then
    return
  end
  for i, name in ipairs(names_counted) do
    local word = words[i]
    local tally, found = string.gsub(new[name] or tallies[i] or '', word .. ' (%d+)', function(number)
      return word .. ' ' .. string.format('%.0f', number + 1)
    end)
    new[name] = found > 0 and tally or (word .. ' 1 ' .. tally)
  end
  local pairs_of_key = {}
  for name, tally in pairs(new) do
    pairs_of_key[#pairs_of_key + 1] = name
    pairs_of_key[#pairs_of_key + 1] = tally
  end
  redis.pcall('HSET', KEYS[7], unpack(pairs_of_key))
end

local keep = tonumber(ARGV[3])
local names_counted, words = {}, {}
for n, name in ipairs(names) do
  local note = notes[n] or '\0'
  local cell = note
  if #note > CELL then
    cell = string.sub(note, 1, CELL)
    local word = string.match(note, '^[^ ]+', CELL + 1)
    if word then
      names_counted[#names_counted + 1], words[#words + 1] = name, word
    end
  end
  if keep > 0 and string.byte(cell) ~= 0 then
    local key = KEYS[8] .. name
    local length = redis.pcall('APPEND', key, cell)
    if type(length) == 'number' and length > 2 * keep then -- seldom, so that most runs cost one call
      redis.pcall('SET', key, redis.call('GETRANGE', key, -keep, -1))
    end
  end
end
if #words > 0 then
  count(names_counted, words)
end
return answer
