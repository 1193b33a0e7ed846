-- Move messages that nobody can run to the dead letters.
--
-- KEYS[1]  hash, gone when empty: the worker's unacknowledged messages, tag -> "<queue key>\0<message>"
-- KEYS[2]  list, capped: dead letters, JSON, the newest on the left
-- KEYS[3]  string: bytes of all letters in the list
-- ARGV[1]  how many dead letters to keep
-- ARGV[2]  how many bytes of them to keep
-- ARGV     then: tag, dead letter, tag, dead letter, …
--
-- Returns the number of messages buried.
local letters = {}
for i = 3, #ARGV, 2 do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    letters[#letters + 1] = ARGV[i + 1]
  end
end
add_dead_letters(KEYS[2], KEYS[3], letters, tonumber(ARGV[1]), tonumber(ARGV[2]))
return #letters
