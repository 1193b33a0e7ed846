-- Store a batch of task results and tell whoever waits for them. A SUCCESS that is already there stays.
--
-- KEYS[i]      string: celery-task-meta-<task id>; also the name of the pub/sub channel that waiting clients listen on
-- ARGV[1]      seconds to keep each result, 0: for ever
-- ARGV[i + 1]  the result document (JSON)
--
-- Returns the number of results stored.
local keep = tonumber(ARGV[1])
local stored = 0
for i, key in ipairs(KEYS) do
  local head = redis.call('GETRANGE', key, 0, 24)
  if not string.find(head, '^{"status": ?"SUCCESS"') then
    local document = ARGV[i + 1]
    if keep > 0 then
      redis.call('SETEX', key, keep, document)
    else
      redis.call('SET', key, document)
    end
    redis.call('PUBLISH', key, document)
    stored = stored + 1
  end
end
return stored
