-- Shared by the scripts that add dead letters and take them out: the list is bounded by number and by bytes.
--
-- The size of the list is kept in a key of its own, which expires a day after it was counted: should another version of
-- beatd, or a person, have changed the list, it is counted again.

-- Bytes of all letters in the list.
local function letters_size(list, size)
  local count = redis.call('LLEN', list)
  local bytes = count > 0 and tonumber(redis.call('GET', size) or '')
  if not bytes then
    bytes = 0
    for start = 0, count - 1, 20 do
      for _, letter in ipairs(redis.call('LRANGE', list, start, start + 19)) do
        bytes = bytes + #letter
      end
    end
    redis.call('SET', size, bytes, 'EX', 86400)
  end
  return bytes
end

-- Add letters, and drop the oldest of the list until it is within both bounds.
local function letters_add(list, size, letters, number_max, bytes_max)
  local bytes = letters_size(list, size)
  for _, letter in ipairs(letters) do
    redis.call('LPUSH', list, letter)
    bytes = bytes + #letter
  end
  local count = redis.call('LLEN', list)
  while count > 0 and (count > number_max or bytes > bytes_max) do
    bytes = bytes - #redis.call('LRANGE', list, -1, -1)[1]
    redis.call('LTRIM', list, 0, -2)
    count = count - 1
  end
  redis.call('SET', size, bytes, 'KEEPTTL')
end

-- Take one letter out; returns 1, or 0 when it is not there any more.
local function letters_remove(list, size, letter)
  local bytes = letters_size(list, size)
  local removed = redis.call('LREM', list, 1, letter)
  if removed == 1 then
    redis.call('SET', size, bytes - #letter, 'KEEPTTL')
  end
  return removed
end

