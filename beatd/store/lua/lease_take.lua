-- Acquire free leases, and leases of daemons that are gone, each with a new fencing token.
--
-- KEYS[3i-2]  lease  string   "<daemon id>:<token>", expires
-- KEYS[3i-1]  term   string   last token given out for that shard
-- KEYS[3i]    terms  list     "<token> <ms of its beginning> <daemon id>" of the last terms, the newest first
-- ARGV[1]     daemon id
-- ARGV[2]     time to live (ms)
-- ARGV[2i + 1] last token for the i-th lease that the daemon knows of, or 0
-- ARGV[2i + 2] value of the i-th lease under which it may be taken from its holder, who is gone; empty: none
--
-- Returns for each lease its token, or 0 when it is another daemon's, or its term is not a number: a token must never
-- be one that was given out before. So it is larger than the one that the daemon knows of, too: the server may have
-- lost its last writes, or all of them. Error CORRUPT for such a term when no lease was acquired.
-- A lease of our own id is one whose answer never reached us: it is acquired again, with a new token.
-- The list of terms is for people: an error is passed over.

local TERMS_MAX = 200

local tokens, acquired, unusable = {}, 0, nil
for i = 1, #KEYS, 3 do
  local fact = 1 + (i + 2) / 3 * 2
  local holder, answer = string_at(KEYS[i]), 0
  if not holder or holder == ARGV[fact + 1] or string.sub(holder, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then
    local last = tonumber(string_at(KEYS[i + 1]) or '0')
    if last then
      local token = string.format('%.0f', math.max(last, tonumber(ARGV[fact])) + 1)
      redis.call('SET', KEYS[i + 1], token)
      redis.call('SET', KEYS[i], ARGV[1] .. ':' .. token, 'PX', ARGV[2])
      local began = string.format('%.0f', now_by_server())
      if type(redis.pcall('LPUSH', KEYS[i + 2], token .. ' ' .. began .. ' ' .. ARGV[1])) == 'number' then
        redis.pcall('LTRIM', KEYS[i + 2], 0, TERMS_MAX - 1)
      end
      answer, acquired = tonumber(token), acquired + 1
    else
      unusable = unusable or corrupt(KEYS[i + 1])
    end
  end
  tokens[#tokens + 1] = answer
end
return acquired == 0 and unusable or tokens
