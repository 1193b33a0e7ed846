-- Move parked messages whose time has come to the head of their queues.
--
-- KEYS[1]  zset, gone when empty: parked messages, "<tag>\0<queue key>\0<message>" -> due (ms)
-- ARGV[1]  now (ms)
-- ARGV[2]  number of messages at most
-- ARGV[3]  due (ms) of a message whose queue cannot be written to
--
-- Returns {number of messages looked at, due of the next one (ms) or '', queue key, why it cannot be written to, …}.
-- The queues are named in the members: not for Redis Cluster.
local refused = {}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for i = #due, 1, -1 do
  local tag_end = string.find(due[i], '\0', 1, true)
  local queue_end = string.find(due[i], '\0', tag_end + 1, true)
  local queue = string.sub(due[i], tag_end + 1, queue_end - 1)
  local pushed = redis.pcall('RPUSH', queue, string.sub(due[i], queue_end + 1))
  if type(pushed) == 'table' then
    redis.call('ZADD', KEYS[1], ARGV[3], due[i])
    refused[#refused + 1], refused[#refused + 2] = queue, pushed.err
  else
    redis.call('ZREM', KEYS[1], due[i])
  end
end
local next_due = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#due, next_due[2] or '', unpack(refused)}
