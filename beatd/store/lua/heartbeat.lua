-- Heartbeat of a daemon: store its status, and read the fleet (all daemons, all leases).
--
-- KEYS[1]  daemons  hash     daemon id -> "<seen, ms> <status, JSON>"
-- KEYS[2…] leases   strings  "<daemon id>:<token>", expire
-- ARGV[1]  daemon id; empty: read only
-- ARGV[2]  its status, JSON
-- ARGV[3]  time (ms) without a heartbeat after which a daemon is forgotten
--
-- Returns {now (ms), {daemon id, value, …}, {lease or '', ms left, …}}, all of one instant by the server's clock. A
-- lease of another type than a string is "?".

local now = now_by_server()
if ARGV[1] ~= '' then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now, ARGV[2]))
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local seen = tonumber(string.match(all[i + 1], '^(%d+) '))
    if seen and now - seen > tonumber(ARGV[3]) then
      redis.call('HDEL', KEYS[1], all[i])
    end
  end
end
local leases = {}
for i = 2, #KEYS do
  leases[#leases + 1] = string_at(KEYS[i]) or ''
  leases[#leases + 1] = redis.call('PTTL', KEYS[i])
end
return {now, redis.call('HGETALL', KEYS[1]), leases}
