-- Counts a decision of the log for its merchant, once: a sequence that is not newer is skipped.
-- KEYS: merchant. ARGV: partition of the log, sequence in it, second of the event, then what to count.
-- Returns 1 if counted, 0 if it had been.
local last = 'sequence:' .. ARGV[1]
local sequence = tonumber(ARGV[2])
if sequence <= tonumber(redis.call('HGET', KEYS[1], last) or 0) then return 0 end
redis.call('HSET', KEYS[1], last, ARGV[2])
add(KEYS[1], 'merchant', tonumber(ARGV[3]), values_from(4))
return 1
