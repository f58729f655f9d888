-- Notes how far a topic's partition has been applied to all entities of a partition of state; never goes back.
-- KEYS: progress, gate. ARGV: text of the gate, topic and partition, next offset, last sequence.
if not stands(KEYS[2], ARGV[1]) then return CLOSED end
local before = string.match(redis.call('HGET', KEYS[1], ARGV[2]) or '0', '^%d+')
if tonumber(ARGV[3]) > tonumber(before) then redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. ' ' .. ARGV[4]) end
return 1
