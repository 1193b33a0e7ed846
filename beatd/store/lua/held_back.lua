-- Note which entries of a shard are held back.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  held      hash    entry name -> JSON: why, since when, when it is tried again
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  "clear" (a term begins: all of them go) or "change"
-- ARGV[3]  how many entries to keep at most
-- ARGV[4]  how long they are kept after the last write (ms)
-- ARGV[5…] name, JSON (empty: it is not held back any more); name, …
--
-- Returns nothing; error FENCED when the term is over.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end
if ARGV[2] == 'clear' then
  redis.call('DEL', KEYS[2])
end
local room = tonumber(ARGV[3]) - redis.call('HLEN', KEYS[2])
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    room = room + redis.call('HDEL', KEYS[2], ARGV[i])
  elseif room > 0 or redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then
    room = room - redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
