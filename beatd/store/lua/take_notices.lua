-- Take notices that are due, the oldest of each destination that is not busy. Each comes again after some time, unless
-- settle_notice.lua has removed it: its sender may have died.
--
-- KEYS[1]  notices  hash  id "<destination>|<order>" -> notice, JSON
-- KEYS[2]  due      zset  id -> when it is to be sent (ms, by the server's clock)
-- ARGV[1]  number of notices at most
-- ARGV[2]  time (ms) after which they come again
-- ARGV[3…] destinations that are busy
--
-- Returns {id, JSON, id, JSON, …}.

local notices, due = KEYS[1], KEYS[2]
local busy, taken, now = {}, {}, now_by_server()
for i = 3, #ARGV do
  busy[ARGV[i]] = true
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', string.format('%.0f', now))) do
  local destination = string.match(id, '^(.*)|') or id
  if #taken >= 2 * tonumber(ARGV[1]) then
    break
  elseif not busy[destination] then
    local notice = redis.call('HGET', notices, id)
    if notice then
      busy[destination] = true
      redis.call('ZADD', due, string.format('%.0f', now + ARGV[2]), id)
      taken[#taken + 1], taken[#taken + 2] = id, notice
    else
      redis.call('ZREM', due, id)
    end
  end
end
return taken
