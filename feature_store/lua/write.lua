-- Compare-and-set of several entities, each with the keys that go with it: an entity that has moved is left as it is.
-- KEYS: gate, then for each entity its key and those that go with it: one slot.
-- ARGV: text of the gate; then for each entity its first bytes as read, its new bytes, seconds to keep them (0: for
--       ever), how many keys go with it, and for each of those its value and seconds to keep it.
-- Returns for each entity whether it was written: 1 or 0.
if not stands(KEYS[1], ARGV[1]) then return CLOSED end

local function set(key, value, seconds)
  if seconds == '0' then redis.call('SET', key, value) else redis.call('SET', key, value, 'EX', seconds) end
end

local written, key, argument = {}, 2, 2
while key <= #KEYS do
  local expected, value, seconds, with = ARGV[argument], ARGV[argument + 1], ARGV[argument + 2], tonumber(ARGV[argument + 3])
  local unmoved = redis.call('GETRANGE', KEYS[key], 0, LAST_OF_HEAD) == expected
  if unmoved then
    set(KEYS[key], value, seconds)
    for n = 1, with do set(KEYS[key + n], ARGV[argument + 2 + 2 * n], ARGV[argument + 3 + 2 * n]) end
  end
  written[#written + 1] = unmoved and 1 or 0
  key, argument = key + 1 + with, argument + 4 + 2 * with
end
return written
