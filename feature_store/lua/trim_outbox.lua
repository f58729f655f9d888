-- Drops what has been published, unless the gate has moved: what this relay published since then does not count.
-- KEYS: outbox, gate. ARGV: text of the gate, first id to keep.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return CLOSED end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
