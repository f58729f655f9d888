-- The one write of a decision: all of it or nothing. A compare-and-set on the card's version.
-- KEYS: card, decided, sequence, outbox, pending, gate: one slot.
-- ARGV: second of the event, version as read ('*' commits whatever it is), seconds to keep the decision,
--       the decision to store, the record for the log, then what to count (measure, integer, ...).
-- Returns {'decided', stored}, {'moved', version, aggregates, positions} or {'committed', sequence}.
local second, expected = tonumber(ARGV[1]), ARGV[2]
if not is_open(KEYS[6]) then return CLOSED end

local stored = redis.call('GET', KEYS[2])
if stored then return {'decided', stored} end

local version = redis.call('HGET', KEYS[1], 'version') or '0'
if expected ~= '*' and expected ~= version then
  return {'moved', tonumber(version), read(KEYS[1], 'card', second)}
end

add(KEYS[1], 'card', second, values_from(6, #ARGV - 5))
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[3])
local sequence = redis.call('INCR', KEYS[3])
redis.call('XADD', KEYS[4], string.format('%.0f-0', sequence), 'record', ARGV[5])
redis.call('ZADD', KEYS[5], second, sequence)
return {'committed', sequence}
