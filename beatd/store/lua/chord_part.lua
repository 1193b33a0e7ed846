-- Note that a task of a chord's header has ended, and find out whether it was the last.
--
-- KEYS[1]  zset: celery-taskset-meta-<group>.j, what the tasks returned -> their place in the header
-- KEYS[2]  string: celery-taskset-meta-<group>.t, how many tasks were added to the header while it ran
-- KEYS[3]  string: celery-taskset-meta-<group>.s, the size of the header
-- KEYS[4]  set: celery-taskset-meta-<group>.d, <task id>:<place> of those that have ended
-- KEYS[5]  string: celery-taskset-meta-<group>, the shape of the header where it has groups inside
-- KEYS[6]  string: celery-taskset-meta-<group>.c, who is sending the body; "done" when it was sent
-- ARGV[1]  <task id>:<place>
-- ARGV[2]  what it returned: JSON of [1, task id, state, result]
-- ARGV[3]  its place, a number or +inf
-- ARGV[4]  seconds to keep all of this, 0: for ever
-- ARGV[5]  who asks
-- ARGV[6]  seconds for which nobody else sends the body after this
--
-- Returns false while others are to come, or when somebody else sends the body; else the shape (or false), followed by
-- what all tasks returned, in order.
if redis.call('GET', KEYS[6]) == 'done' then
  return false
end
if redis.call('SADD', KEYS[4], ARGV[1]) == 1 then
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2])
end
local keep = tonumber(ARGV[4])
if keep > 0 then
  for i = 1, 5 do
    redis.call('EXPIRE', KEYS[i], keep)
  end
end
local size = redis.call('GET', KEYS[3])
if not size then
  return false
end
local wanted = tonumber(size) + tonumber(redis.call('GET', KEYS[2]) or 0)
if redis.call('ZCARD', KEYS[1]) ~= wanted then
  return false
end
local owner = redis.call('GET', KEYS[6])
if owner and owner ~= ARGV[5] then
  return false
end
redis.call('SET', KEYS[6], ARGV[5], 'EX', ARGV[6])
local answer = redis.call('ZRANGE', KEYS[1], 0, -1)
table.insert(answer, 1, redis.call('GET', KEYS[5]))
return answer
