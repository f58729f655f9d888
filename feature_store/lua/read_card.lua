-- What the decision needs of the card, and the decision itself if there is one.
-- KEYS: card, decided. ARGV: second of the event. Returns {stored decision} or {false, version, aggregates, positions}.
local stored = redis.call('GET', KEYS[2])
if stored then return {stored} end
return {false, tonumber(redis.call('HGET', KEYS[1], 'version') or 0), read(KEYS[1], 'card', tonumber(ARGV[1]))}
