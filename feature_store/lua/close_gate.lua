-- Closes a gate, whoever closed it before. KEYS: gate. ARGV: token. Returns its text.
local epochs = string.match(redis.call('GET', KEYS[1]) or '', '^[%d ]*')
local text = epochs .. '!' .. ARGV[1] .. '@' .. run_id()
redis.call('SET', KEYS[1], text)
return text
