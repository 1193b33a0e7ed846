-- Record ends of attempts of scheduled runs: for a day by their ids, in the histories of their entries, as records with
-- error and output, and in the summaries of their entries.
--
-- KEYS[1]     summaries  hash    entry name -> "<end> <failing since> <last success> <failures in a row> <mark>" (ms)
--                                and how many ends there were of each mark, in the order "sflevr"
-- KEYS[2]     recovered  zset    "<failing since> <end> <failures> <entry>" of entries that succeeded after failures
--                                -> when that was noted (ms), each higher than the one before
-- KEYS[3i]    finished   string  expires: "<state> <runtime, ms>"
-- KEYS[3i+1]  history    string  cells of the entry: 20 bytes each, the newest last, see claim.lua
-- KEYS[3i+2]  records    list    of the entry, the newest first, see beatd/store/outcomes.py
-- ARGV[1]     time (ms) to keep the first
-- ARGV[2]     number of records to keep
-- ARGV[3]     bytes of records to keep
-- ARGV[4…]    eight for each:
--             value for "finished"; empty: the run is tried again
--             due time of the run, as six bytes; empty if it has an id of its own
--             that id, as 16 bytes
--             outcome, as the last five bytes of its cell; empty if there is no number for it
--             entry name
--             mark of the summary: s success, f failure, l lost, e expired, v revoked, r retry; empty: none
--             when it ended (ms); empty: now
--             record; empty: none
--
-- Returns the kind of each run's cell, or 0 for a run that is not in its history any more, or whose history cannot be
-- read: it is remembered by its id only.

local SENT, BACKFILLED, RUN_ID = 1, 2, 5 -- kinds of cells
local FIRST, FIELDS = 4, 8 -- of the runs in ARGV
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
  local newest = redis.pcall('ZRANGE', KEYS[2], 0, 0, 'REV', 'WITHSCORES')
  local at = now_by_server()
  if newest[2] and tonumber(newest[2]) >= at then
    at = tonumber(newest[2]) + 1
  end
  redis.pcall('ZADD', KEYS[2], string.format('%.0f', at), since .. ' ' .. ended .. ' ' .. failures .. ' ' .. name)
  redis.pcall('ZREMRANGEBYRANK', KEYS[2], 0, -RECOVERED_MAX - 1)
  redis.pcall('PEXPIRE', KEYS[2], RECOVERED_MS)
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

local now, kinds = string.format('%.0f', now_by_server()), {}
for i = 1, (#KEYS - 2) / 3 do
  local key, at = 3 * i, FIRST + FIELDS * (i - 1)
  local name, mark, record = ARGV[at + 4], ARGV[at + 5], ARGV[at + 7]
  if ARGV[at] ~= '' then
    redis.call('SET', KEYS[key], ARGV[at], 'PX', ARGV[1])
  end
  if record ~= '' then
    add_record(KEYS[key + 2], record)
  end
  kinds[i] = note_in_history(KEYS[key + 1], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  if mark ~= '' then
    summarize(name, mark, ARGV[at + 6] ~= '' and ARGV[at + 6] or now)
  end
end
return kinds
