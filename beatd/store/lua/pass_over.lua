-- Record gaps: stretches of time whose runs were missed, and left out by catch-up.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  gaps      hash    entry name -> "<after> <before> <after> <before> …" (ms): the runs that are due between
--                            the two, and with neither of them, have not been claimed. One after 0, which comes first,
--                            is the time before the entry was first seen: load_entries.lua reads from it
--                            what may be claimed
-- KEYS[3]  history   string  an entry's cells are in the key of this name and its own, see claim.lua
-- KEYS[4]  missed    hash    entry name -> "<after> <before>" (ms): the newest gap of this script, for people who are
--                            told of it; KEYS[2] has also those of load_entries.lua
-- KEYS[5]  last due  hash    entry name -> ms
-- ARGV[1]  value that the lease must have
-- ARGV[2]  how long gaps are kept after the last one was added (ms)
-- ARGV[3]  bytes of history to keep for each entry (0: none is written)
-- ARGV[4]  how long KEYS[4] is kept after the last one was added (ms)
-- ARGV[5…] name, after (ms), before (ms), cell, decided (ms; empty: some of these runs are sent after all); name, …
--
-- Where nothing is caught up, last due moves on to "decided": the next leader would decide about these runs again, and
-- about those together with them that it finds late, and a change of the entry would bring them back.
--
-- Error FENCED when the term is over. Gaps are read only when the clock shows an earlier time than last due: should it
-- turn out that the clock was ahead, their runs are still to come. Of each entry the last eight are kept. A field that
-- cannot be read stays as it is: load_entries.lua reports it.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end

-- Note a gap in the history. One that begins where the newest record does is the same one, which has grown: it replaces
-- that record.
local function note_gap(key, cell, keep)
  local length, newest = redis.pcall('STRLEN', key), redis.pcall('GETRANGE', key, -CELL, -1)
  if type(newest) == 'string' and #newest == CELL and string.sub(newest, 1, 7) == string.sub(cell, 1, 7) then
    redis.pcall('SETRANGE', key, length - CELL, cell)
  else
    append_history(key, cell, keep)
  end
end

local keep = tonumber(ARGV[3])
for i = 5, #ARGV, 5 do
  local name, after, before, cell, decided = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local gaps = parse_gaps(redis.call('HGET', KEYS[2], name) or '')
  if gaps then
    add_gap(gaps, after, before)
    store_gaps(KEYS[2], name, gaps)
    if decided ~= '' and redis.call('HGET', KEYS[5], name) == after then
      redis.call('HSET', KEYS[5], name, decided)
    end
    redis.pcall('HSET', KEYS[4], name, after .. ' ' .. before) -- a foreign value there stops nothing
    if keep > 0 then
      note_gap(KEYS[3] .. name, cell, keep)
    end
  end
end
live_at_least(KEYS[2], tonumber(ARGV[2]))
redis.pcall('PEXPIRE', KEYS[4], ARGV[4])
return redis.status_reply('OK')
