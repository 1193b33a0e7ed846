-- Give the lease back, if it is still ours, and wake the standbys.
--
-- KEYS[1]  lease  string   "<daemon id>:<token>", expires
-- ARGV[1]  the value it must have
-- ARGV[2]  the channel that standbys listen on
--
-- Returns 1 when it was released, 0 when it was gone or another's.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], 'released')
return 1
