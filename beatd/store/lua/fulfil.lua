-- Take one step of a request for runs: send runs, remember their ids, and store the progress. All or nothing.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  requests  hash    request id -> "<valid until, ms> <request, JSON>"
-- KEYS[3]  answer    string  JSON, expires: the reply so far
-- KEYS[4]  running   hash    entry name -> "<run id> <ms until which it may run>"
-- KEYS[5]  tally     hash    entry name -> "<word> <number> …", see claim.lua
-- KEYS[6]  history   string  cells of the entry: 20 bytes each, the newest last
-- KEYS[7]  list      list    where messages are pushed: the queue, or the outbox
-- KEYS[8…] sent      string  one for each run, expires: there when a run of this id was sent by hand
-- ARGV[1]  value that the lease must have
-- ARGV[2]  request id
-- ARGV[3]  value that KEYS[2] must have for it
-- ARGV[4]  rest of the request, JSON; empty: it is done
-- ARGV[5]  reply
-- ARGV[6]  time (ms) to keep reply and sent
-- ARGV[7]  bytes of history to keep (0: none is written)
-- ARGV[8]  entry name
-- ARGV[9]  value for KEYS[4]; empty: none
-- ARGV[10] word under which runs are counted
-- ARGV[11…] message, cells; message, cells; …
--
-- Returns the new value of KEYS[2] for the request (empty: it is done), or nil when the old one is not as expected: the
-- request was withdrawn, or dealt with in an attempt that seemed to fail; then nothing is written. Error FENCED when
-- the term is over. A run that was sent before is left out.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] then
  return false
end

local messages, cells, new = {}, {}, {}
for i = 8, #KEYS do
  if redis.call('SET', KEYS[i], ARGV[2], 'NX', 'PX', ARGV[6]) then
    new[#new + 1] = KEYS[i]
    messages[#messages + 1] = ARGV[2 * i - 5]
    cells[#cells + 1] = ARGV[2 * i - 4]
  end
end
-- As in claim.lua: a script that fails half way is not undone. What fails before this leaves no message, and no request
-- that counts as done with; only that its runs count as sent, which is undone here.
local pushed = #messages == 0 or redis.pcall('LPUSH', KEYS[7], unpack(messages))
if type(pushed) == 'table' then
  redis.call('DEL', unpack(new))
  return pushed
end
local left = ''
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[2], ARGV[2])
else
  local now = now_by_server()
  left = string.format('%.0f %s', now + tonumber(ARGV[6]), ARGV[4])
  redis.call('HSET', KEYS[2], ARGV[2], left)
  live_at_least(KEYS[2], tonumber(ARGV[6]))
end
redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])

if #messages > 0 then
  if ARGV[9] ~= '' then
    redis.pcall('HSET', KEYS[4], ARGV[8], ARGV[9])
  end
  local tally = redis.pcall('HGET', KEYS[5], ARGV[8])
  redis.pcall('HSET', KEYS[5], ARGV[8], add_to_tally(type(tally) == 'string' and tally or '', ARGV[10], #messages))
  append_history(KEYS[6], table.concat(cells), tonumber(ARGV[7]))
end
return left
