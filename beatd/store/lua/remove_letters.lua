-- Remove dead letters for good.
--
-- KEYS[1]  list    dead letters, JSON, the newest on the left
-- KEYS[2]  string  bytes of all dead letters in the list
-- ARGV     dead letter, dead letter, …
--
-- Returns how many were still there.
local removed = 0
for _, letter in ipairs(ARGV) do
  removed = removed + remove_dead_letter(KEYS[1], KEYS[2], letter)
end
return removed
