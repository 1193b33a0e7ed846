-- Prelude of all scripts: the functions that they share. It is put in front of each script (see beatd/store/script.py).

-- Fencing. Returns the error FENCED when the lease has another value: the caller's term is over. Else nil.
local function fenced(lease, value)
  if redis.call('GET', lease) ~= value then
    return redis.error_reply('FENCED term ' .. value .. ' is over')
  end
end

-- String under a key; "?" where the key is of another type: no lease and no number, and no reason to stop other shards.
local function string_at(key)
  local value = redis.pcall('GET', key)
  if type(value) ~= 'table' then
    return value
  end
  return string.find(value.err, '^WRONGTYPE') and '?' or redis.call('GET', key)
end

-- The error CORRUPT: a key that people or other programs have changed.
local function corrupt(key)
  return redis.error_reply('CORRUPT key ' .. key .. ' does not hold a number')
end

-- Number in a field: an instant (ms) or a count, 15 digits at most. Nil for anything else.
local function to_number(text)
  return text and #text <= 15 and string.find(text, '^%d+$') and tonumber(text) or nil
end

-- Counter of claimed runs and begun entries. `confirmed` is the count that the caller was last told: a smaller one
-- means that the server lost writes that it had confirmed. Returns the count, or nil and the error CORRUPT or ROLLBACK.
local function claims_count(key, confirmed)
  local count = tonumber(redis.call('GET', key) or '0')
  if not count then
    return nil, corrupt(key)
  elseif count < confirmed then
    return nil, redis.error_reply('ROLLBACK key ' .. key .. ' is at ' .. count .. ' and was at ' .. confirmed)
  end
  return count
end

-- Now (ms) by the server's clock.
local function now_by_server()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Expiry of a hash whose fields have times of their own: not before the last of them.
local function live_at_least(key, ms)
  if redis.call('PTTL', key) < ms then
    redis.call('PEXPIRE', key, string.format('%.0f', ms))
  end
end

-- HISTORY AND TALLY. They are for people: an error is passed over, and no run waits for it.

local CELL = 20 -- bytes of one record, see beatd/store/history.py

-- Cut a history that has become twice as long as wanted: seldom, so that most runs cost one call.
local function trim_history(key, length, keep)
  if type(length) == 'number' and length > 2 * keep then
    redis.pcall('SET', key, redis.call('GETRANGE', key, -keep, -1))
  end
end

local function append_history(key, cells, keep)
  if keep > 0 then
    trim_history(key, redis.pcall('APPEND', key, cells), keep)
  end
end

-- Tally "<word> <number> <word> <number> …" with `by` added to one word.
local function add_to_tally(tally, word, by)
  local changed, found = string.gsub(tally, word .. ' (%d+)', function(number)
    return word .. ' ' .. string.format('%.0f', number + by)
  end)
  return found > 0 and changed or (word .. ' ' .. by .. ' ' .. tally)
end

-- GAPS: stretches of time whose runs were passed over, as a flat list of texts {after, before, after, before, …} (ms).

local GAPS_MAX = 16 -- numbers, two for each gap

-- Gaps in a field. Nil when the field holds anything else than pairs of numbers.
local function parse_gaps(text)
  local gaps = {}
  for word in string.gmatch(text, '[^ ]+') do
    if not to_number(word) then
      return nil
    end
    gaps[#gaps + 1] = word
  end
  return #gaps % 2 == 0 and gaps or nil
end

-- Append a gap, unless it is noted already: an entry that resumes at the same point again passes over the same runs.
local function add_gap(gaps, after, before)
  for i = 1, #gaps, 2 do
    if gaps[i] == after and gaps[i + 1] == before then
      return
    end
  end
  gaps[#gaps + 1], gaps[#gaps + 2] = after, before
end

-- Write gaps. The oldest are dropped, but never the one after 0: it says that there was a time before the entry.
local function store_gaps(key, name, gaps)
  while #gaps > GAPS_MAX do
    local oldest = gaps[1] == '0' and 3 or 1
    table.remove(gaps, oldest)
    table.remove(gaps, oldest)
  end
  redis.call('HSET', key, name, table.concat(gaps, ' '))
end

-- KNOWN: entry name -> "<first seen ms> <fingerprint>", with "off " before the fingerprint of one that is not in force.

-- Mark an entry as not in force: if its schedule is in force again, it goes on from then, as after a pause.
local function mark_off(key, name)
  local known = redis.pcall('HGET', key, name)
  local first_seen, fingerprint = string.match(type(known) == 'string' and known or '', '^(%d+) (.*)$')
  if fingerprint and string.sub(fingerprint, 1, 4) ~= 'off ' then
    redis.call('HSET', key, name, first_seen .. ' off ' .. fingerprint)
  end
end

-- CHANGES of runtime entries and pauses, each with a revision number.

-- Next revision. The first has an instant, too: numbers begin anew when the store was flushed.
local function next_revision(key)
  local number = redis.call('HINCRBY', key, 'number', 1)
  if number == 1 then
    local time = redis.call('TIME')
    redis.call('HSET', key, 'began', time[1] .. string.format('%06d', time[2]))
  end
  return number
end

-- Drop the oldest changes, and notify the daemons.
local function announce_changes(changes, keep, channel)
  redis.call('ZREMRANGEBYRANK', changes, 0, -keep - 1)
  redis.call('PUBLISH', channel, 'changed')
end

-- DEAD LETTERS: a list that is bounded by number and by bytes, the newest on the left. Its size in bytes is in a key of
-- its own, which expires a day after it was counted: if another version of beatd, or a person, has changed the list, it
-- is counted again.

local function dead_letters_size(list, size)
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

-- Add dead letters, and drop the oldest until the list is within both bounds.
local function add_dead_letters(list, size, letters, number_max, bytes_max)
  local bytes = dead_letters_size(list, size)
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

-- Remove one dead letter. Returns 1, or 0 when it is not in the list any more.
local function remove_dead_letter(list, size, letter)
  local bytes = dead_letters_size(list, size)
  local removed = redis.call('LREM', list, 1, letter)
  if removed == 1 then
    redis.call('SET', size, bytes - #letter, 'KEEPTTL')
  end
  return removed
end

