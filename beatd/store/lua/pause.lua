-- Pause entries. One that is paused already keeps its note, but for the fields that are to be changed.
--
-- KEYS[1]  paused    hash    entry name -> {"since", "by", "reason", "until"}, JSON
-- KEYS[2]  revision  hash    number: of changes so far; began: when the first was made (µs)
-- KEYS[3]  changes   zset    entry name -> revision of its last change, the latest ones
-- ARGV[1]  notification channel of daemons
-- ARGV[2]  number of changes to keep
-- ARGV[3]  note, JSON
-- ARGV[4]  fields of the note that change that of an entry which is paused already, by spaces; may be empty
-- ARGV[5…] entry names
--
-- Returns two lists of numbers (from 0): of the names that were not paused before, and of those whose notes changed.

local FIRST = 5
local new = cjson.decode(ARGV[3])

-- The note with the changed fields, or nil if it is the same as before. One that cannot be read is replaced.
local function changed_note(stored)
  local readable, note = pcall(cjson.decode, stored)
  if not readable or type(note) ~= 'table' then
    return ARGV[3]
  end
  local is_new = false
  for field in string.gmatch(ARGV[4], '%S+') do
    is_new = is_new or note[field] ~= new[field]
    note[field] = new[field]
  end
  return is_new and cjson.encode(note) or nil
end

local paused, changed = {}, {}
for i = FIRST, #ARGV do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[3]) == 1 then
    paused[#paused + 1] = i - FIRST
  else
    local note = ARGV[4] ~= '' and changed_note(redis.call('HGET', KEYS[1], ARGV[i]))
    if note then
      redis.call('HSET', KEYS[1], ARGV[i], note)
      changed[#changed + 1] = i - FIRST
    end
  end
end
for _, numbers in ipairs({paused, changed}) do
  for _, number in ipairs(numbers) do
    redis.call('ZADD', KEYS[3], next_revision(KEYS[2]), ARGV[number + FIRST])
  end
end
if #paused + #changed > 0 then
  announce_changes(KEYS[3], ARGV[2], ARGV[1])
end
return {paused, changed}
