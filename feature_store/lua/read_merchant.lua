-- KEYS: merchant, gate. ARGV: second of the event. Returns the merchant's {aggregates, positions}, and whether its gate is
-- open: on a cluster it may be on a server that came back with less, and the card on another.
local aggregates, positions = read(KEYS[1], 'merchant', tonumber(ARGV[1]))
return {aggregates, positions, is_open(KEYS[2]) and 1 or 0}
