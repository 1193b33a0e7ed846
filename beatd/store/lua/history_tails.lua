-- Read the newest bytes of many histories in one call.
--
-- KEYS     string  histories of entries, cells as in store/history.py
-- ARGV[1]  first byte, counted from the end if negative, as in GETRANGE
--
-- Returns for each key its bytes; none for a key that is not there or is of another type.

local tails = {}
for i, key in ipairs(KEYS) do
  local tail = redis.pcall('GETRANGE', key, ARGV[1], -1)
  tails[i] = type(tail) == 'string' and tail or ''
end
return tails
