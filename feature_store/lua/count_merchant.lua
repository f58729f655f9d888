-- Counts decisions of the log for one merchant, each once: a sequence that is not newer is skipped.
-- All of a batch come in one call: one by one, a call that has to be repeated would find a later one counted before it.
-- KEYS: merchant, gate. ARGV: text of the gate, partition of the log; then for each decision, in order: sequence, second
-- of the event, how many arguments follow for it, and what to count (measure, integer, ...). Returns how many were new.
if not stands(KEYS[2], ARGV[1]) then return CLOSED end
local last = 'sequence:' .. ARGV[2]
local counted_to = tonumber(redis.call('HGET', KEYS[1], last) or 0)
local counted, index = 0, 3
while index <= #ARGV do
  local sequence, second, length = tonumber(ARGV[index]), tonumber(ARGV[index + 1]), tonumber(ARGV[index + 2])
  if sequence > counted_to then
    add(KEYS[1], 'merchant', second, values_from(index + 3, length))
    counted_to, counted = sequence, counted + 1
  end
  index = index + 3 + length
end
redis.call('HSET', KEYS[1], last, string.format('%.0f', counted_to))
return counted
