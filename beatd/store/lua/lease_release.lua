-- Give leases back, each if it is still ours, and wake those who wait for one.
--
-- KEYS[i]      lease  string   "<daemon id>:<token>", expires
-- ARGV[1]      the channel that standbys listen on
-- ARGV[i + 1]  the value that the i-th lease must have
--
-- Returns how many were released; the rest was gone or another's.

local released = 0
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i + 1] then
    released = released + redis.call('DEL', key)
  end
end
if released > 0 then
  redis.call('PUBLISH', ARGV[1], 'released')
end
return released
