-- Remember stretches of time whose runs were passed over: missed, and left out by catch-up.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  gaps      hash    entry name -> "<after> <before> <after> <before> …" (ms): the runs that are due between the
--                            two, and with neither of them, have not been claimed. One after 0, which comes first, is
--                            the time before the entry was first seen: adopt.lua cuts off from it what may be claimed
-- KEYS[3]  history   string  an entry's cells are in the key of this name and its own, see claim.lua
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  how long gaps are kept after the last one was added (ms)
-- ARGV[3]  how many bytes of history to keep for each entry (0: none is written)
-- ARGV[4…] name, after (ms), before (ms), cell; name, …
--
-- Error FENCED when the term is over. Gaps are looked at only when the clock shows an earlier time than last due: should
-- it turn out that the clock was ahead, their runs are still to come. Of each entry the last eight are kept.
-- A gap that begins where the one before it in the history does is the same one, which has grown: it replaces that.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end

local CELL = 20
local keep = tonumber(ARGV[3])
for i = 4, #ARGV, 4 do
  local gaps = {}
  for number in string.gmatch(redis.call('HGET', KEYS[2], ARGV[i]) or '', '%d+') do
    gaps[#gaps + 1] = number
  end
  gaps[#gaps + 1], gaps[#gaps + 2] = ARGV[i + 1], ARGV[i + 2]
  if #gaps > 16 then -- the oldest goes, but for what adopt.lua notes first
    local oldest = gaps[1] == '0' and 3 or 1
    table.remove(gaps, oldest)
    table.remove(gaps, oldest)
  end
  redis.call('HSET', KEYS[2], ARGV[i], table.concat(gaps, ' '))
  if keep > 0 then
    local key = KEYS[3] .. ARGV[i]
    local cell = ARGV[i + 3]
    local length, last = redis.pcall('STRLEN', key), redis.pcall('GETRANGE', key, -CELL, -1)
    if type(last) == 'string' and #last == CELL and string.sub(last, 1, 7) == string.sub(cell, 1, 7) then
      redis.pcall('SETRANGE', key, length - CELL, cell)
    else
      length = redis.pcall('APPEND', key, cell)
    end
    if type(length) == 'number' and length > 2 * keep then
      redis.pcall('SET', key, redis.call('GETRANGE', key, -keep, -1))
    end
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return redis.status_reply('OK')
