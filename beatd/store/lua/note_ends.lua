-- Record ends of attempts of scheduled runs: that they are over, in the histories of their entries, as records with
-- error and output, and in the summaries of their entries.
--
-- KEYS[1]  summaries  hash    entry name -> "<end> <failing since> <last success> <failures in a row> <mark>" (ms)
--                             and how many ends there were of each mark, in the order "sflevr"
-- KEYS[2]  ended      hash    entry name -> "<after> <due> <after> <due> …" (ms): stretches of time whose runs are
--                             over; in order, and none touches another, see beatd/store/ended_runs.py
-- KEYS[3]  running    hash    entry name -> "<run id> <ms until which it may run>", see claim.lua
-- KEYS[4]  by id      string  the key of this name and a run's id expires: "<state> <runtime, ms>", or why the broker
--                             refused the run
-- KEYS[5]  history    string  likewise with the entry's name: its cells, 20 bytes each, the newest last, see claim.lua
-- KEYS[6]  records    list    likewise: its records, the newest first, see beatd/store/outcomes.py
-- KEYS[7]  recovered  zset    "<failing since> <end> <failures> <entry>" of entries that succeeded after failures ->
--                             when that was noted (ms), each higher than the one before
-- ARGV[1]  time (ms) to keep what is kept by id
-- ARGV[2]  number of records to keep
-- ARGV[3]  bytes of records to keep
-- ARGV[4…] twelve for each, and at most 500 of them:
--          run id
--          value to keep by that id; empty: none
--          the run is the first of its entry after this instant (ms); empty: nothing is added to KEYS[2]
--          its due time (ms)
--          "1" if it is over; empty: it is tried again
--          due time of the run, as six bytes; empty if it has an id of its own
--          that id, as 16 bytes
--          outcome, as the last five bytes of its cell; empty if there is no number for it
--          entry name
--          mark of the summary: s success, f failure, l lost, e expired, v revoked, r retry; empty: none
--          when it ended (ms); empty: now
--          record; empty: none
--
-- Returns the kind of each run's cell, or 0 for a run that is not in its history any more, or whose history cannot be
-- read. An error, and nothing is written, when the server takes no writes.

local SENT, BACKFILLED, RUN_ID = 1, 2, 5 -- kinds of cells
local FIRST, FIELDS = 4, 12 -- of the runs in ARGV
local ID, VALUE, AFTER, DUE, OVER, DUE_BYTES = 0, 1, 2, 3, 4, 5
local OWN_ID, OUTCOME, NAME, MARK, ENDED_AT, RECORD = 6, 7, 8, 9, 10, 11
local STRETCHES_MAX = 200 -- numbers, two for each
local MARKS = 'sflevr' -- in the order of the counts
local SPARE = 10 -- records above the bound before the oldest are dropped
local LARGE = 1024 -- bytes; records below do not reach the bound in bytes
local RECOVERED_MAX, RECOVERED_MS = 10000, 3600000 -- the newest, for an hour after the last
local summaries, records_max, bytes_max = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- Write the outcome into the cell of the run. Returns the kind of the cell, or 0 if there is none.
local function note_in_history(key, due, id, ending)
  local cells, own_id = redis.pcall('GET', key), nil
  if type(cells) ~= 'string' or ending == '' then
    return 0
  end
  for start = #cells - CELL + 1, 1, -CELL do
    local kind = string.byte(cells, start)
    if kind == RUN_ID then
      own_id = string.sub(cells, start + 1, start + 16)
    else
      local is_by_due = (kind == SENT or kind == BACKFILLED) and string.sub(cells, start + 1, start + 6) == due
      if (own_id and own_id == id) or (not own_id and is_by_due) then
        redis.pcall('SETRANGE', key, start + 14, ending)
        return kind
      end
      own_id = nil
    end
  end
  return 0
end

-- Add a record, and drop the oldest beyond the bounds: seldom, so that most ends cost one call.
local function add_record(key, record)
  local count = redis.pcall('LPUSH', key, record)
  if type(count) ~= 'number' then
    return
  end
  if count > records_max + SPARE then
    redis.call('LTRIM', key, 0, records_max - 1)
  end
  if #record > LARGE then
    local bytes = 0
    for place, kept in ipairs(redis.call('LRANGE', key, 0, -1)) do
      bytes = bytes + #kept
      if bytes > bytes_max and place > 1 then
        redis.call('LTRIM', key, 0, place - 2)
        break
      end
    end
  end
end

-- Keep that an entry succeeded after failures: for who tells of both, and looks too seldom to see the failures.
local function note_recovery(name, since, ended, failures)
  local newest = redis.pcall('ZRANGE', KEYS[7], 0, 0, 'REV', 'WITHSCORES')
  local at = now_by_server()
  if newest[2] and tonumber(newest[2]) >= at then
    at = tonumber(newest[2]) + 1
  end
  redis.pcall('ZADD', KEYS[7], string.format('%.0f', at), since .. ' ' .. ended .. ' ' .. failures .. ' ' .. name)
  redis.pcall('ZREMRANGEBYRANK', KEYS[7], 0, -RECOVERED_MAX - 1)
  redis.pcall('PEXPIRE', KEYS[7], RECOVERED_MS)
end

-- Bring the summary of an entry up to date. What is noted twice, as its answer was lost, counts once.
local function summarize(name, mark, ended)
  local stored = redis.pcall('HGET', summaries, name)
  if type(stored) == 'table' then
    return
  end
  local last, since, success, failures, last_mark, counts =
    string.match(stored or '', '^(%d+) (%d+) (%d+) (%d+) (%a)([ %d]*)$')
  if last == ended and last_mark == mark then
    return
  end
  if mark == 's' and since and since ~= '0' then
    note_recovery(name, since, ended, failures)
  end
  if mark == 's' then
    since, success, failures = '0', ended, 0
  elseif mark == 'f' or mark == 'l' or mark == 'e' then
    since = (not since or since == '0') and ended or since
    failures = (failures or 0) + 1
  end
  local place, new = string.find(MARKS, mark, 1, true), ''
  local next_count = string.gmatch(counts or '', '%d+')
  for n = 1, #MARKS do
    new = new .. ' ' .. string.format('%.0f', (next_count() or 0) + (n == place and 1 or 0))
  end
  local numbers = ended .. ' ' .. (since or '0') .. ' ' .. (success or '0') .. ' ' .. (failures or '0')
  redis.pcall('HSET', summaries, name, numbers .. ' ' .. mark .. new)
end

-- Add the stretch that ends with a run to those of its entry. Stretches that touch become one, so that runs that end
-- one after the other leave a single one; the oldest are dropped beyond the bound.
local function add_stretch(text, after, due)
  local first, last = string.match(text, '^(%d+) (%d+)$')
  if last == after then
    return first .. ' ' .. due
  end
  local stored, merged, placed = parse_gaps(text) or {}, {}, false
  local from, to = tonumber(after), tonumber(due)
  local function add(a, b)
    merged[#merged + 1], merged[#merged + 2] = string.format('%.0f', a), string.format('%.0f', b)
  end
  for i = 1, #stored, 2 do
    local a, b = tonumber(stored[i]), tonumber(stored[i + 1])
    if b < from then
      add(a, b)
    elseif to < a then
      if not placed then
        add(from, to)
        placed = true
      end
      add(a, b)
    else
      from, to = math.min(a, from), math.max(b, to)
    end
  end
  if not placed then
    add(from, to)
  end
  return table.concat(merged, ' ', math.max(1, #merged - STRETCHES_MAX + 1))
end

-- Fields of a hash; none where the key is of another type.
local function fields_of(key, names)
  local found = #names > 0 and redis.pcall('HMGET', key, unpack(names)) or {}
  return found.err and {} or found
end

-- Note which runs are over, so that their messages are not run again, and no other run waits for them.
local function note_over()
  local linked, over, names, starts = {}, {}, {}, {}
  for at = FIRST, #ARGV, FIELDS do
    if ARGV[at + AFTER] ~= '' then
      linked[#linked + 1], starts[#starts + 1] = ARGV[at + NAME], at
    end
    if ARGV[at + OVER] ~= '' then
      over[#over + 1], names[#names + 1] = at, ARGV[at + NAME]
    end
  end
  local changed, fields = {}, {}
  for n, text in ipairs(fields_of(KEYS[2], linked)) do
    local name, at = linked[n], starts[n]
    changed[name] = add_stretch(changed[name] or text or '', ARGV[at + AFTER], ARGV[at + DUE])
  end
  for name, text in pairs(changed) do
    fields[#fields + 1], fields[#fields + 2] = name, text
  end
  if #fields > 0 then
    redis.pcall('HSET', KEYS[2], unpack(fields))
  end
  if redis.call('EXISTS', KEYS[3]) == 1 then
    for n, run in ipairs(fields_of(KEYS[3], names)) do
      local id = ARGV[over[n] + ID]
      if run and string.sub(run, 1, #id + 1) == id .. ' ' then
        redis.pcall('HDEL', KEYS[3], names[n])
      end
    end
  end
end

-- Errors of single keys are passed over, but not that the server takes no writes for now: the ends would be lost.
local tried = redis.pcall('SETRANGE', KEYS[4] .. ARGV[FIRST], 0, '')
for _, code in ipairs({'OOM', 'READONLY', 'MISCONF', 'NOREPLICAS'}) do
  if type(tried) == 'table' and string.find(tried.err, code, 1, true) then
    return tried
  end
end

note_over()
local now, kinds = string.format('%.0f', now_by_server()), {}
for at = FIRST, #ARGV, FIELDS do
  local name, mark, record, ended_at = ARGV[at + NAME], ARGV[at + MARK], ARGV[at + RECORD], ARGV[at + ENDED_AT]
  if ARGV[at + VALUE] ~= '' then
    redis.call('SET', KEYS[4] .. ARGV[at + ID], ARGV[at + VALUE], 'PX', ARGV[1])
  end
  if record ~= '' then
    add_record(KEYS[6] .. name, record)
  end
  kinds[#kinds + 1] = note_in_history(KEYS[5] .. name, ARGV[at + DUE_BYTES], ARGV[at + OWN_ID], ARGV[at + OUTCOME])
  if mark ~= '' then
    summarize(name, mark, ended_at ~= '' and ended_at or now)
  end
end
return kinds
