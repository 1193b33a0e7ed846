-- Claim runs and push their messages, all in one step.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  last due  hash    entry name -> ms
-- KEYS[3]  runs      hash    entry name -> number of runs sent
-- KEYS[4]  running   hash    entry name -> "<run id> <ms until which it may run>"
-- KEYS[5]  gaps      hash    entry name -> "<after> <before> <after> <before> …" (ms), see pass_over.lua
-- KEYS[6…] queues    list    where messages are pushed
-- ARGV[1]  the value that the lease must have
-- ARGV[2…] name, due (ms), number of its queue in KEYS (0: nothing is sent), message, running (or empty); name, …
--
-- Returns the numbers (from 0) of the runs that were left out because they had been claimed: their due is not after
-- last due, and in none of the gaps; error FENCED, and nothing written, when the term is over.
-- Runs of one entry must come in the order of their due times; messages reach a queue in the order given.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end

local names = {}
for i = 2, #ARGV, 5 do
  names[#names + 1] = ARGV[i]
end
local stored_due = redis.call('HMGET', KEYS[2], unpack(names))
local stored_runs = redis.call('HMGET', KEYS[3], unpack(names))

-- Whether a run that is not after last due was passed over and is still open; from now on what is up to it is not.
local function take_from_gap(name, due)
  local gaps, found = {}, false
  for number in string.gmatch(redis.call('HGET', KEYS[5], name) or '', '%d+') do
    gaps[#gaps + 1] = number
  end
  for i = 1, #gaps, 2 do
    if tonumber(gaps[i]) < tonumber(due) and tonumber(due) < tonumber(gaps[i + 1]) then
      gaps[i], found = due, true
    end
  end
  if found then
    redis.call('HSET', KEYS[5], name, table.concat(gaps, ' '))
  end
  return found
end

local last_due, runs, running, pushes, left_out = {}, {}, {}, {}, {}
for n, name in ipairs(names) do
  local at = 5 * n - 3
  local due, queue = ARGV[at + 1], tonumber(ARGV[at + 2])
  local last = last_due[name] or stored_due[n]
  local is_new = not last or tonumber(last) < tonumber(due)
  if is_new then
    last_due[name] = due
  end
  if not is_new and not take_from_gap(name, due) then
    left_out[#left_out + 1] = n - 1
  else
    if queue > 0 then
      runs[name] = (runs[name] or tonumber(stored_runs[n] or '0')) + 1
      if ARGV[at + 4] ~= '' then
        running[name] = ARGV[at + 4]
      end
      local messages = pushes[queue]
      if not messages then
        messages = {}
        pushes[queue] = messages
      end
      messages[#messages + 1] = ARGV[at + 3]
    end
  end
end

for key, fields in pairs({[KEYS[2]] = last_due, [KEYS[3]] = runs, [KEYS[4]] = running}) do
  local pairs_of_key = {}
  for name, value in pairs(fields) do
    pairs_of_key[#pairs_of_key + 1] = name
    pairs_of_key[#pairs_of_key + 1] = value
  end
  if #pairs_of_key > 0 then
    redis.call('HSET', key, unpack(pairs_of_key))
  end
end
for queue, messages in pairs(pushes) do
  redis.call('LPUSH', KEYS[queue], unpack(messages))
end
return left_out
