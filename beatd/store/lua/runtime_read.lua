-- Read fields of a hash, up to a number of bytes in one call.
--
-- KEYS[1]  hash     entry name -> JSON
-- ARGV[1]  bytes of values to return at most
-- ARGV[2…] names
--
-- Returns for each name its value, or nil when it is not there. The first value that does not fit is replaced by its
-- size in bytes, all after it by 0: they were not read.

local spare, values = tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  local value = spare > 0 and redis.call('HGET', KEYS[1], ARGV[i])
  local size = value and #value or 0
  if spare == 0 then
    value = 0
  elseif size > spare then
    value, size = size, spare
  end
  spare = spare - size
  values[#values + 1] = value
end
return values
