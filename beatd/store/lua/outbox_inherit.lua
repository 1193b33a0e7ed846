-- Move what waits in the outboxes of shards that are no more into the outbox of one that is, before what is in there.
--
-- KEYS[1]     lease   string  "<daemon id>:<token>"
-- KEYS[2]     outbox  list    envelopes, the oldest last
-- KEYS[2i+1]  lease of a former shard
-- KEYS[2i+2]  outbox of that shard
-- ARGV[1]     the value that the first lease must have
-- ARGV[2]     how many messages to move at most
--
-- Returns {moved, how many outboxes were left as they are because somebody leads that shard after all};
-- error FENCED when the term is over.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end
local moved, left = 0, 0
for i = 3, #KEYS, 2 do
  if redis.call('LLEN', KEYS[i + 1]) > 0 then
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
