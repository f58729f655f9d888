-- Strikes out decisions that the updater has counted. KEYS: pending, pending_since. ARGV: their sequences.
redis.call('ZREM', KEYS[1], unpack(ARGV))
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
if oldest then redis.call('SET', KEYS[2], oldest) else redis.call('DEL', KEYS[2]) end
return 1
