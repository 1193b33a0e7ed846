-- Claim runs and push their messages, all in one step.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  last due  hash    entry name -> ms
-- KEYS[3…] queues    list    where messages are pushed
-- ARGV[1]  the value that the lease must have
-- ARGV[2…] name, due (ms), number of its queue in KEYS (0: push nothing), message; name, due, …
--
-- Returns the numbers (from 0) of the runs that were left out because their last due is not before their due;
-- error FENCED, and nothing written, when the term is over.
-- Runs of one entry must come in the order of their due times; messages reach a queue in the order given.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end

local names = {}
for i = 2, #ARGV, 4 do
  names[#names + 1] = ARGV[i]
end
local stored = redis.call('HMGET', KEYS[2], unpack(names))

local last_due, pushes, left_out = {}, {}, {}
for n, name in ipairs(names) do
  local at = 4 * n - 2
  local due, queue = ARGV[at + 1], tonumber(ARGV[at + 2])
  local last = last_due[name] or stored[n]
  if last and tonumber(last) >= tonumber(due) then
    left_out[#left_out + 1] = n - 1
  else
    last_due[name] = due
    if queue > 0 then
      local messages = pushes[queue]
      if not messages then
        messages = {}
        pushes[queue] = messages
      end
      messages[#messages + 1] = ARGV[at + 3]
    end
  end
end

local moved = {}
for name, due in pairs(last_due) do
  moved[#moved + 1] = name
  moved[#moved + 1] = due
end
if #moved > 0 then
  redis.call('HSET', KEYS[2], unpack(moved))
end
for queue, messages in pairs(pushes) do
  redis.call('LPUSH', KEYS[queue], unpack(messages))
end
return left_out
