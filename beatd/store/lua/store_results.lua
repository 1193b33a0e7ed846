-- Store a batch of task results, and notify waiting clients. A SUCCESS that is already stored stays.
--
-- KEYS[i]      string: celery-task-meta-<task id>; also the name of the pub/sub channel of waiting clients
-- ARGV[1]      seconds to keep each result, 0: for ever
-- ARGV[i + 1]  result document (JSON)
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
