-- Applies a label to the tiles of its transaction's own time, once per transaction: the first label stands.
-- KEYS: card or merchant, label, gate (same slot).
-- ARGV: text of the gate, entity, second of the transaction, label as text, frauds (0 or 1), partition and offset of the
-- label in its topic. Returns 1 if applied, 0 if the same label had been, -1 if another one stands.
if not stands(KEYS[3], ARGV[1]) then return CLOSED end
local standing = redis.call('GET', KEYS[2])
if standing then return standing == ARGV[4] and 0 or -1 end
redis.call('SET', KEYS[2], ARGV[4], 'EX', PLAN.expire)
add(KEYS[1], ARGV[2], tonumber(ARGV[3]), {[PLAN.frauds] = tonumber(ARGV[5])})
redis.call('HSET', KEYS[1], 'label:' .. ARGV[6], ARGV[7])
return 1
