-- Take the lease of a shard when nobody holds it, under a new term.
--
-- KEYS[1]  lease  string   "<daemon id>:<token>", expires
-- KEYS[2]  term   string   the last token given out
-- ARGV[1]  daemon id
-- ARGV[2]  time to live (ms)
--
-- Returns {token} when it was taken, {0, holder, ms left} when somebody else has it.
-- A lease of our own id is one whose answer never reached us: it is taken again, under a new token.

local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[1] + 1) ~= ARGV[1] .. ':' then
  return {0, holder, redis.call('PTTL', KEYS[1])}
end
local token = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. token, 'PX', ARGV[2])
return {token}
