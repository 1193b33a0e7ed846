-- Count a finished task of a chord's header. Idempotent: a task that is reported twice counts once.
--
-- KEYS[1]  zset: celery-taskset-meta-<group>.j, return values of tasks -> their place in the header; a list of return
--          values, in the order in which they ended, where workers of Celery 4 count, too
-- KEYS[2]  string: celery-taskset-meta-<group>.t, number of tasks that were added to the header while it ran
-- KEYS[3]  string: celery-taskset-meta-<group>.s, size of the header
-- KEYS[4]  set: celery-taskset-meta-<group>.d, <task id>:<place> of finished tasks
-- KEYS[5]  string: celery-taskset-meta-<group>, shape of the header if it has nested groups
-- KEYS[6]  string: celery-taskset-meta-<group>.c, worker that sends the body; "done" when it was sent
-- ARGV[1]  <task id>:<place>
-- ARGV[2]  return value: JSON of [1, task id, state, result]
-- ARGV[3]  place in the header, a number or +inf
-- ARGV[4]  seconds to keep all of this, 0: for ever
-- ARGV[5]  worker that calls
-- ARGV[6]  seconds for which no other worker sends the body after this, and to keep a part that comes after it
-- ARGV[7]  size of the header in the message; empty if it is not there. Clients of Celery 4 write no KEYS[3]
-- ARGV[8]  type of a KEYS[1] that is begun here: zset, list, or empty: a list for chords of Celery 4's clients
--
-- Returns false while tasks are missing, and when the body was sent; the ms for which another worker has it to send,
-- and after which it is to be asked for again; else the shape (or false), the members of KEYS[4] if KEYS[1] is a list,
-- and the return values of all tasks, in the order of KEYS[1].
-- After the body was sent, this is a repeated report, or the first part of another run under the same ids: Celery's
-- client announces that run just before it sends its last task. So it is kept for a while, and completes nothing.
local is_done = redis.call('GET', KEYS[6]) == 'done'
local size = redis.call('GET', KEYS[3])
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then
  kind = ARGV[8] ~= '' and ARGV[8] or not size and ARGV[7] ~= '' and 'list' or 'zset'
end
if kind ~= 'list' and kind ~= 'zset' then -- before the task counts: the server undoes nothing of a failed script
  return redis.error_reply('WRONGTYPE key ' .. KEYS[1] .. ' is a ' .. kind)
end
if redis.call('SADD', KEYS[4], ARGV[1]) == 1 then
  if kind == 'list' then
    redis.call('RPUSH', KEYS[1], ARGV[2])
  else
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2])
  end
end
local keep = tonumber(is_done and ARGV[6] or ARGV[4])
if keep > 0 then
  for i = 1, 5 do
    redis.call('EXPIRE', KEYS[i], keep)
  end
end
size = size or ARGV[7]
if is_done or size == '' then
  return false
end
local wanted = tonumber(size) + tonumber(redis.call('GET', KEYS[2]) or 0)
if redis.call(kind == 'list' and 'LLEN' or 'ZCARD', KEYS[1]) ~= wanted then
  return false
end
local owner = redis.call('GET', KEYS[6])
if owner and owner ~= ARGV[5] then
  return redis.call('PTTL', KEYS[6])
end
redis.call('SET', KEYS[6], ARGV[5], 'EX', ARGV[6])
local answer = redis.call(kind == 'list' and 'LRANGE' or 'ZRANGE', KEYS[1], 0, -1)
table.insert(answer, 1, redis.call('GET', KEYS[5]))
table.insert(answer, 2, kind == 'list' and redis.call('SMEMBERS', KEYS[4]))
return answer
