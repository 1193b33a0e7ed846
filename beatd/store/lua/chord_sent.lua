-- Note that the body of a chord was sent, or given up: later ends of its header's tasks are ignored. A chord that was
-- sent again meanwhile, under the same id, has no claim of this worker any more and is left alone.
--
-- KEYS[1]  string: celery-taskset-meta-<group>.c, worker that sends the body; "done" when it was sent
-- KEYS[2..] the other keys of the chord
-- ARGV[1]  worker that calls
-- ARGV[2]  seconds to remember it
--
-- Returns 1, or 0 if the chord was left alone.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
for i = 2, #KEYS do
  redis.call('DEL', KEYS[i])
end
redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2])
return 1
