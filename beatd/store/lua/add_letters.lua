-- Add dead letters, and drop the oldest beyond the bounds.
--
-- KEYS[1]  list    dead letters, JSON, the newest on the left
-- KEYS[2]  string  bytes of all letters in the list
-- ARGV[1]  how many dead letters to keep
-- ARGV[2]  how many bytes of them to keep
-- ARGV     then: letter, letter, …
local letters = {}
for i = 3, #ARGV do
  letters[#letters + 1] = ARGV[i]
end
add_dead_letters(KEYS[1], KEYS[2], letters, tonumber(ARGV[1]), tonumber(ARGV[2]))
