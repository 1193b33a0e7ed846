-- Lease renewal: extend leases that are still ours.
--
-- KEYS[i]      lease  string   "<daemon id>:<token>", expires
-- ARGV[1]      time to live from now on (ms)
-- ARGV[i + 1]  value that the i-th lease must have
--
-- Returns for each lease 1 when it was renewed, 0 when it is gone or another daemon's.

local renewed = {}
for i, key in ipairs(KEYS) do
  if string_at(key) == ARGV[i + 1] then
    renewed[i] = redis.call('PEXPIRE', key, ARGV[1])
  else
    renewed[i] = 0
  end
end
return renewed
