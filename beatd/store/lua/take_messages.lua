-- Move messages from queues to the hash of the worker that takes them, so that they outlive it.
--
-- KEYS[1]      hash, gone when empty: the worker's unacknowledged messages, tag -> "<queue key>\0<message>"
-- KEYS[2]      zset, for ever: workers that may hold messages, id -> last seen (ms)
-- KEYS[3]      string, for ever: the last tag given out
-- KEYS[3 + i]  lists: queues, those to be emptied first in front
-- ARGV[1]      how many messages at most
-- ARGV[2]      worker id
-- ARGV[3]      now, ms since the epoch
--
-- Returns {tag, queue key, message, tag, …}, oldest first.
local wanted = tonumber(ARGV[1])
local taken = {}
local count = 0
for i = 4, #KEYS do
  if count >= wanted then
    break
  end
  local messages = redis.call('RPOP', KEYS[i], wanted - count)
  if messages then
    local last = redis.call('INCRBY', KEYS[3], #messages)
    local first = last - #messages
    for n, message in ipairs(messages) do
      redis.call('HSET', KEYS[1], first + n, KEYS[i] .. '\0' .. message)
      taken[#taken + 1] = first + n
      taken[#taken + 1] = KEYS[i]
      taken[#taken + 1] = message
    end
    count = count + #messages
  end
end
if count > 0 then
  redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[2])
end
return taken
