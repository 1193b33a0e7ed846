-- Make the lease last longer, if it is still ours.
--
-- KEYS[1]  lease  string   "<daemon id>:<token>", expires
-- ARGV[1]  the value it must have
-- ARGV[2]  time to live from now on (ms)
--
-- Returns 1 when it was renewed, 0 when it is gone or another's.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
