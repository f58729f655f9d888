-- The one write of a decision: all of it or nothing. A compare-and-set on the card's revision.
-- KEYS: gate, card, decided, sequence, outbox, pending, pending_since: one slot.
-- ARGV: text of the gate, the card's first bytes as read, its new bytes, seconds to keep them, the decision to store,
--       seconds to keep it, the record for the log, second of the event.
-- Returns {'decided', stored}, {'moved', the card's bytes now} or {'committed', sequence}.
if not stands(KEYS[1], ARGV[1]) then return CLOSED end

local stored = redis.call('GET', KEYS[3])
if stored then return {'decided', stored} end

if redis.call('GETRANGE', KEYS[2], 0, LAST_OF_HEAD) ~= ARGV[2] then return {'moved', redis.call('GET', KEYS[2])} end

local sequence = redis.call('INCR', KEYS[4])
redis.call('SET', KEYS[2], ARGV[3] .. struct.pack('>I8I8', sequence, sequence), 'EX', ARGV[4])
redis.call('SET', KEYS[3], ARGV[5], 'EX', ARGV[6])
redis.call('XADD', KEYS[5], string.format('%.0f-0', sequence), 'record', ARGV[7])
redis.call('ZADD', KEYS[6], ARGV[8], sequence)
local since = redis.call('GET', KEYS[7])
if not since or tonumber(ARGV[8]) < tonumber(since) then redis.call('SET', KEYS[7], ARGV[8]) end
return {'committed', sequence}
