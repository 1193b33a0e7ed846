-- Add dead letters, and drop the oldest until the list is within its bounds.
--
-- KEYS[1]  list    dead letters, JSON, the newest on the left
-- KEYS[2]  string  bytes of all dead letters in the list
-- ARGV[1]  number of dead letters to keep
-- ARGV[2]  bytes of dead letters to keep
-- ARGV[3…] dead letter, dead letter, …
local letters = {}
for i = 3, #ARGV do
  letters[#letters + 1] = ARGV[i]
end
add_dead_letters(KEYS[1], KEYS[2], letters, tonumber(ARGV[1]), tonumber(ARGV[2]))
