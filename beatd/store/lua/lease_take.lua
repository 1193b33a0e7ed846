-- Acquire free leases, and leases of daemons that are gone, each with a new fencing token.
--
-- KEYS[2i-1]  lease  string   "<daemon id>:<token>", expires
-- KEYS[2i]    term   string   last token given out for that shard
-- ARGV[1]     daemon id
-- ARGV[2]     time to live (ms)
-- ARGV[2i + 1] last token for the i-th lease that the daemon knows of, or 0
-- ARGV[2i + 2] value of the i-th lease under which it may be taken from its holder, who is gone; empty: none
--
-- Returns for each lease its token, or 0 when another daemon holds it.
-- Error CORRUPT when a term is not a number: a token must never be one that was given out before. So it is larger than
-- the one that the daemon knows of, too: the server may have lost its last writes, or all of them.
-- A lease of our own id is one whose answer never reached us: it is acquired again, with a new token.

local tokens = {}
for i = 1, #KEYS, 2 do
  local holder = redis.call('GET', KEYS[i])
  if holder and holder ~= ARGV[i + 3] and string.sub(holder, 1, #ARGV[1] + 1) ~= ARGV[1] .. ':' then
    tokens[#tokens + 1] = 0
  else
    local last = tonumber(redis.call('GET', KEYS[i + 1]) or '0')
    if not last then
      return corrupt(KEYS[i + 1])
    end
    local token = string.format('%.0f', math.max(last, tonumber(ARGV[i + 2])) + 1)
    redis.call('SET', KEYS[i + 1], token)
    redis.call('SET', KEYS[i], ARGV[1] .. ':' .. token, 'PX', ARGV[2])
    tokens[#tokens + 1] = tonumber(token)
  end
end
return tokens
