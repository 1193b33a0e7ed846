-- Record the end of scheduled runs: for a day by their ids, and in the histories of their entries.
--
-- KEYS[2i-1]  finished  string  expires: "<state> <runtime, ms>"
-- KEYS[2i]    history   string  cells of the entry: 20 bytes each, the newest last, see claim.lua
-- ARGV[1]     time (ms) to keep the first
-- ARGV[4i-2]  state and runtime, for the first
-- ARGV[4i-1]  due time of the run, as six bytes; empty if it has an id of its own
-- ARGV[4i]    that id, as 16 bytes
-- ARGV[4i+1]  outcome, as the last five bytes of its cell; empty if there is no number for it
--
-- Returns the kind of each run's cell, or 0 for a run that is not in its history any more, or whose history cannot be
-- read: it is remembered by its id only.

local SENT, BACKFILLED, RUN_ID = 1, 2, 5 -- kinds of cells
local kinds = {}
for i = 1, #KEYS / 2 do
  local key, at = KEYS[2 * i], 4 * i - 2
  kinds[i] = 0
  redis.call('SET', KEYS[2 * i - 1], ARGV[at], 'PX', ARGV[1])
  local cells, own_id = redis.pcall('GET', key), nil
  if type(cells) == 'string' and ARGV[at + 3] ~= '' then
    for start = #cells - CELL + 1, 1, -CELL do
      local kind = string.byte(cells, start)
      if kind == RUN_ID then
        own_id = string.sub(cells, start + 1, start + 16)
      else
        local due = string.sub(cells, start + 1, start + 6)
        local is_by_due = (kind == SENT or kind == BACKFILLED) and due == ARGV[at + 1]
        if (own_id and own_id == ARGV[at + 2]) or (not own_id and is_by_due) then
          redis.pcall('SETRANGE', key, start + 14, ARGV[at + 3])
          kinds[i] = kind
          break
        end
        own_id = nil
      end
    end
  end
end
return kinds
