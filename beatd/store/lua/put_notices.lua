-- Add notices to the outbox of notifications, together with the marks that say what they tell.
--
-- KEYS[1]  lease    string  "<daemon id>:<token>"
-- KEYS[2]  notices  hash    id "<destination>|<order>" -> notice, JSON
-- KEYS[3]  due      zset    id -> when it is to be sent (ms, by the server's clock)
-- KEYS[4]  marks    hash    field -> text
-- ARGV[1]  value that the lease must have; empty: nobody leads, and the marks must not exist yet
-- ARGV[2]  number of notices to keep
-- ARGV[3]  time (ms) to keep everything after the last write
-- ARGV[4]  number of notices
-- ARGV[5…] id, JSON; id, JSON; … then field, text (empty: it is removed); field, text; …
--
-- Returns the number of the oldest notices that were dropped, or -1 if a mark exists already and nothing was done.
-- Error FENCED when the term is over.

local lease, notices, due, marks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local first_mark = 5 + 2 * tonumber(ARGV[4])
if ARGV[1] ~= '' then
  local over = fenced(lease, ARGV[1])
  if over then
    return over
  end
else
  for i = first_mark, #ARGV, 2 do
    if redis.call('HEXISTS', marks, ARGV[i]) == 1 then
      return -1
    end
  end
end
local now = now_by_server()
for i = 5, first_mark - 1, 2 do
  redis.call('HSET', notices, ARGV[i], ARGV[i + 1])
  redis.call('ZADD', due, now, ARGV[i])
end
for i = first_mark, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', marks, ARGV[i])
  else
    redis.call('HSET', marks, ARGV[i], ARGV[i + 1])
  end
end
local dropped = 0
for _, id in ipairs(redis.call('ZRANGE', due, 0, -1 - tonumber(ARGV[2]))) do
  redis.call('HDEL', notices, id)
  redis.call('ZREM', due, id)
  dropped = dropped + 1
end
for i = 2, 4 do
  redis.call('PEXPIRE', KEYS[i], ARGV[3])
end
return dropped
