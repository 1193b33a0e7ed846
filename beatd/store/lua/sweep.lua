-- Mark entries that left the schedule, and forget the state of those that left it long ago. An entry that is marked is
-- not in force: if it comes back it goes on from then, and the runs between are not caught up.
--
-- KEYS[1]  lease     string  "<daemon id>:<token>"
-- KEYS[2]  gone      zset    name of an entry that is not in the schedule -> ms since when
-- KEYS[3]  history   string  an entry's cells are in the key of this name and its own
-- KEYS[4]  outcomes  list    likewise, the records of its runs
-- KEYS[5]  known     hash    entry name -> "<first seen ms> <fingerprint>", "off " before it: not in force
-- KEYS[6…] other hashes that have a field for each entry
-- ARGV[1]  value that the lease must have
-- ARGV[2]  now (ms)
-- ARGV[3…] name, "mark" (it has just left), "forget" (it left long ago) or "" (it is back); name, …
--
-- Returns nothing; error FENCED when the term is over.

local over = fenced(KEYS[1], ARGV[1])
if over then
  return over
end
for i = 3, #ARGV, 2 do
  local name, change = ARGV[i], ARGV[i + 1]
  if change ~= 'mark' then
    redis.call('ZREM', KEYS[2], name)
  elseif redis.call('HEXISTS', KEYS[5], name) == 1 then
    redis.call('ZADD', KEYS[2], 'NX', ARGV[2], name)
    mark_off(KEYS[5], name)
  end
  if change == 'forget' then
    redis.call('DEL', KEYS[3] .. name, KEYS[4] .. name)
    for k = 5, #KEYS do
      redis.call('HDEL', KEYS[k], name)
    end
  end
end
