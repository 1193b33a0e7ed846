-- Move messages that cannot be run to the dead letters.
--
-- KEYS[1]  hash, gone when empty: unacknowledged messages of the worker, tag -> "<queue key>\0<message>"
-- KEYS[2]  list, bounded: dead letters, JSON, the newest on the left
-- KEYS[3]  string: bytes of all dead letters in the list
-- ARGV[1]  number of dead letters to keep
-- ARGV[2]  bytes of dead letters to keep
-- ARGV[3…] tag, dead letter; tag, dead letter; …
--
-- Returns the number of messages moved. A message that is not unacknowledged any more is left out. The dead letters are
-- tried before a message is removed, as the server undoes nothing of a script that fails half way.
dead_letters_size(KEYS[2], KEYS[3])
local letters = {}
for i = 3, #ARGV, 2 do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    letters[#letters + 1] = ARGV[i + 1]
  end
end
add_dead_letters(KEYS[2], KEYS[3], letters, tonumber(ARGV[1]), tonumber(ARGV[2]))
return #letters
