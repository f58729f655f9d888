-- What commit wrote, once more from the log: decisions that Redis has lost. One that it has is skipped. All of a batch in
-- one call, see count_merchant.lua.
-- KEYS: sequence, gate, then card and decided for each decision: one slot. ARGV: text of the gate; then for each decision,
-- in order: sequence, second of the event, seconds to keep it (0: it would be gone by now), what to store, how many
-- arguments follow for it, and what to count (measure, integer, ...). Returns how many were restored.
if not stands(KEYS[2], ARGV[1]) then return CLOSED end
local last = tonumber(redis.call('GET', KEYS[1]) or 0)
local restored, index = 0, 2
for key = 3, #KEYS, 2 do
  local sequence, keep, length = tonumber(ARGV[index]), tonumber(ARGV[index + 2]), tonumber(ARGV[index + 4])
  if sequence > last then
    add(KEYS[key], 'card', tonumber(ARGV[index + 1]), values_from(index + 5, length))
    redis.call('HINCRBY', KEYS[key], 'version', 1)
    if keep > 0 then redis.call('SET', KEYS[key + 1], ARGV[index + 3], 'EX', keep) end
    last, restored = sequence, restored + 1
  end
  index = index + 5 + length
end
if restored > 0 then redis.call('SET', KEYS[1], string.format('%.0f', last)) end
return restored
