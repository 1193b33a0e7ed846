-- Release leases that are still ours, and notify the standbys.
--
-- KEYS[i]      lease  string   "<daemon id>:<token>", expires
-- ARGV[1]      notification channel of daemons
-- ARGV[i + 1]  value that the i-th lease must have
--
-- Returns the number of leases released; the others were gone or another daemon's.

local released = 0
for i, key in ipairs(KEYS) do
  if string_at(key) == ARGV[i + 1] then
    released = released + redis.call('DEL', key)
  end
end
if released > 0 then
  redis.call('PUBLISH', ARGV[1], 'released')
end
return released
