-- Remove the oldest messages from the outbox: the broker has them, or never will.
--
-- KEYS[1]  lease         string  "<daemon id>:<token>"
-- KEYS[2]  outbox        list    envelopes, the oldest last
-- KEYS[3]  dead letters  list    JSON, the newest first; bounded
-- KEYS[4]  size          string  bytes of all dead letters
-- KEYS[5]  tally         hash    entry name -> "<word> <number> …", see claim.lua
-- KEYS[6]  known         hash    entry name -> …: of an entry that is not in there nothing is counted
-- ARGV[1]  value that the lease must have
-- ARGV[2]  number of messages
-- ARGV[3]  SHA-1 of these messages, one after the other, the oldest first
-- ARGV[4]  number of dead letters to keep
-- ARGV[5]  bytes of dead letters to keep
-- ARGV[6]  number of runs that the broker refused
-- ARGV[7…] two for each of them: entry name; word under which it is counted
-- then     dead letters: removed messages that no broker takes
--
-- Returns the number of messages left. Nothing is removed when the oldest are others by now: the call was made before,
-- and its answer lost, or more was taken over from another shard meanwhile. Error FENCED, and nothing removed, when the
-- term is over: the new leader then sends them once more, under the same ids.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end
local newest_first, oldest_first = redis.call('LRANGE', KEYS[2], -tonumber(ARGV[2]), -1), {}
for i = #newest_first, 1, -1 do
  oldest_first[#oldest_first + 1] = newest_first[i]
end
if redis.sha1hex(table.concat(oldest_first)) == ARGV[3] then
  local letters = 7 + 2 * tonumber(ARGV[6])
  if ARGV[letters] then -- tried before anything is removed: the server undoes nothing of a script that fails half way
    dead_letters_size(KEYS[3], KEYS[4])
  end
  redis.call('LTRIM', KEYS[2], 0, -(tonumber(ARGV[2]) + 1))
  if ARGV[letters] then
    add_dead_letters(KEYS[3], KEYS[4], {unpack(ARGV, letters)}, tonumber(ARGV[4]), tonumber(ARGV[5]))
  end
  for at = 7, letters - 2, 2 do -- the tally is for people: an error is passed over
    local tally = redis.pcall('HGET', KEYS[5], ARGV[at])
    local is_known = type(redis.pcall('HGET', KEYS[6], ARGV[at])) == 'string'
    if is_known and type(tally) ~= 'table' then
      redis.pcall('HSET', KEYS[5], ARGV[at], add_to_tally(tally or '', ARGV[at + 1], 1))
    end
  end
end
return redis.call('LLEN', KEYS[2])
