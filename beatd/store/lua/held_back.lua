-- Record the entries of a shard that are held back.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  held      hash    entry name -> JSON: reason, since when, next attempt
-- ARGV[1]  value that the lease must have
-- ARGV[2]  "clear" (a term begins: remove all of them) or "change"
-- ARGV[3]  number of entries to keep at most
-- ARGV[4]  time (ms) to keep them after the last write
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
