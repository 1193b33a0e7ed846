-- Move the messages in outboxes of former shards into the outbox of a present one, in front of its own.
--
-- KEYS[1]     lease   string  "<daemon id>:<token>"
-- KEYS[2]     outbox  list    envelopes, the oldest last
-- KEYS[2i+1]  lease of a former shard
-- KEYS[2i+2]  outbox of that shard
-- ARGV[1]     value that the first lease must have
-- ARGV[2]     number of messages to move at most
--
-- Returns {moved, number of outboxes left as they are because another daemon still leads that shard};
-- error FENCED when the term is over.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end
local moved, left = 0, 0
for i = 3, #KEYS, 2 do
  local length = redis.pcall('LLEN', KEYS[i + 1])
  if type(length) == 'table' then -- no list: not an outbox, and nothing that could be moved
    left = left + 1
  elseif length > 0 then
    if redis.call('EXISTS', KEYS[i]) == 1 then
      left = left + 1
    else
      while moved < tonumber(ARGV[2]) and redis.call('LMOVE', KEYS[i + 1], KEYS[2], 'LEFT', 'RIGHT') do
        moved = moved + 1
      end
    end
  end
end
return {moved, left}
