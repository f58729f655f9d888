-- Applies a label to the tiles of its transaction's own time, once per transaction: the first label stands.
-- KEYS: card or merchant, label (same slot). ARGV: entity, second of the transaction, label as text, frauds (0 or 1).
-- Returns 1 if applied, 0 if the same label had been, -1 if another one stands.
local stands = redis.call('GET', KEYS[2])
if stands then return stands == ARGV[3] and 0 or -1 end
redis.call('SET', KEYS[2], ARGV[3], 'EX', PLAN.expire)
add(KEYS[1], ARGV[1], tonumber(ARGV[2]), {[PLAN.frauds] = tonumber(ARGV[4])})
return 1
