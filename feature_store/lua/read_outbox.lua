-- KEYS: outbox, gate. ARGV: text of the gate, how many. Returns the oldest records, with their ids.
if not stands(KEYS[2], ARGV[1]) then return CLOSED end
return redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])
