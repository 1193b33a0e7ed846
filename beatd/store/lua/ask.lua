-- Ask the leader of an entry for runs of it, unless the same was asked before.
--
-- KEYS[1]  requests  hash    request id -> "<good until, ms> <request, JSON>"
-- KEYS[2]  answer    string  JSON, expires after a day: what became of this request
-- ARGV[1]  request id
-- ARGV[2]  the request, JSON
-- ARGV[3]  for how long (ms) somebody may begin with it, by the store's own clock
-- ARGV[4]  the channel that daemons listen on
-- ARGV[5]  what is said there
--
-- Returns the answer if there is one already, else nil. What was refused may be asked again.

local answer = redis.call('GET', KEYS[2])
if answer and string.sub(answer, 1, 18) == '{"state":"refused"' then
  redis.call('DEL', KEYS[2])
  answer = false
end
if not answer then
  local now = now_by_server()
  redis.call('HSETNX', KEYS[1], ARGV[1], string.format('%.0f %s', now + tonumber(ARGV[3]), ARGV[2]))
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return answer
