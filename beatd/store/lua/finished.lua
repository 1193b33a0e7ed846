-- A worker's word that a run is over: the next one of its entry need not wait for it.
--
-- KEYS[1]  running  hash    entry name -> "<run id> <ms until which it may run>"
-- ARGV     entry name, run id; entry name, run id; …
--
-- Returns how many were struck off; a run that is not the entry's last one any more leaves everything as it is.

local struck = 0
for i = 1, #ARGV, 2 do
  local running = redis.call('HGET', KEYS[1], ARGV[i])
  if running and string.sub(running, 1, #ARGV[i + 1]) == ARGV[i + 1] then
    struck = struck + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return struck
