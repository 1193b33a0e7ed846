-- Strike off the oldest messages of the outbox: the broker has them.
--
-- KEYS[1]  lease   string  "<daemon id>:<token>"
-- KEYS[2]  outbox  list    envelopes, the oldest last
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  how many
--
-- Returns how many are left; error FENCED, and nothing struck off, when the term is over: the new leader then sends
-- them once more, under the same ids.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end
redis.call('LTRIM', KEYS[2], 0, -(tonumber(ARGV[2]) + 1))
return redis.call('LLEN', KEYS[2])
