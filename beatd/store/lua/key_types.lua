-- Find the keys that are there and hold a value of another type than they should.
--
-- KEYS     any     keys of one type
-- ARGV[1]  the type that they should have, as TYPE names it
--
-- Returns pairs, one after the other: the key, the type that it has.

local wrong = {}
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= ARGV[1] then
    wrong[#wrong + 1] = key
    wrong[#wrong + 1] = kind
  end
end
return wrong
