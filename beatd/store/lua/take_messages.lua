-- Take messages from queues into the worker's unacknowledged messages, so that they outlive it.
--
-- KEYS[1]      hash, gone when empty: unacknowledged messages of the worker, tag -> "<queue key>\0<message>"
-- KEYS[2]      set, for ever: ids of workers that may hold messages
-- KEYS[3]      string, for ever: last tag given out
-- KEYS[3 + i]  lists: queues, the most urgent first
-- ARGV[1]      number of messages at most
-- ARGV[2]      worker id
-- ARGV[3]      largest tag that the worker has seen: if the server lost its data, tags go on from there
--
-- Returns {{tag, queue key, message, tag, …}, {queue key, why it cannot be read, queue key, …}}: the oldest message
-- first, and the queues that were passed over.
local wanted = tonumber(ARGV[1])
local taken, refused = {}, {}
local count = 0
if tonumber(ARGV[3]) > tonumber(redis.call('GET', KEYS[3]) or 0) then
  redis.call('SET', KEYS[3], ARGV[3])
end
for i = 4, #KEYS do
  local messages = count < wanted and redis.pcall('RPOP', KEYS[i], wanted - count)
  if messages and messages.err then
    refused[#refused + 1], refused[#refused + 2] = KEYS[i], messages.err
  elseif messages then
    local tag = redis.call('INCRBY', KEYS[3], #messages) - #messages
    for _, message in ipairs(messages) do
      tag = tag + 1
      redis.call('HSET', KEYS[1], tag, KEYS[i] .. '\0' .. message)
      taken[#taken + 1] = tag
      taken[#taken + 1] = KEYS[i]
      taken[#taken + 1] = message
    end
    count = count + #messages
  end
end
if count > 0 then
  redis.call('SADD', KEYS[2], ARGV[2])
end
return {taken, refused}
