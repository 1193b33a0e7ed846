-- Strike off the oldest messages of the outbox: the broker has them, or never will.
--
-- KEYS[1]  lease         string  "<daemon id>:<token>"
-- KEYS[2]  outbox        list    envelopes, the oldest last
-- KEYS[3]  dead letters  list    JSON, the newest first; capped
-- ARGV[1]  the value that the lease must have
-- ARGV[2]  how many
-- ARGV[3]  how many dead letters to keep
-- ARGV[4…] dead letters: those of the struck-off messages that nobody takes
--
-- Returns how many are left; error FENCED, and nothing struck off, when the term is over: the new leader then sends
-- them once more, under the same ids.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED term ' .. ARGV[1] .. ' is over')
end
redis.call('LTRIM', KEYS[2], 0, -(tonumber(ARGV[2]) + 1))
if ARGV[4] then
  redis.call('LPUSH', KEYS[3], unpack(ARGV, 4))
  redis.call('LTRIM', KEYS[3], 0, ARGV[3] - 1)
end
return redis.call('LLEN', KEYS[2])
