-- Add a request for runs, unless the same request was made before, and notify the daemons. Idempotent.
--
-- KEYS[1]  requests  hash    request id -> "<valid until, ms> <request, JSON>", expires with the last
-- KEYS[2]  answer    string  JSON, expires after a day: the reply to this request
-- ARGV[1]  request id
-- ARGV[2]  request, JSON
-- ARGV[3]  time (ms, by the server's clock) within which a leader may begin with it
-- ARGV[4]  notification channel of daemons
-- ARGV[5]  notification
--
-- Returns the reply if there is one already, else nil. A request that was refused may be made again.

local answer = redis.call('GET', KEYS[2])
if answer and string.sub(answer, 1, 18) == '{"state":"refused"' then
  redis.call('DEL', KEYS[2])
  answer = false
end
if not answer then
  local now = now_by_server()
  redis.call('HSETNX', KEYS[1], ARGV[1], string.format('%.0f %s', now + tonumber(ARGV[3]), ARGV[2]))
  live_at_least(KEYS[1], tonumber(ARGV[3]))
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return answer
