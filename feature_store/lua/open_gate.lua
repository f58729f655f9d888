-- Opens the gate if it is still closed by the same hand. KEYS: gate. ARGV: text, epochs.
if not stands(KEYS[1], ARGV[1]) then return CLOSED end
redis.call('SET', KEYS[1], ARGV[2] .. '@' .. run_id())
return 1
