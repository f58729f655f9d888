-- KEYS: merchant. ARGV: second of the event. Returns the merchant's {aggregates, positions}.
return {read(KEYS[1], 'merchant', tonumber(ARGV[1]))}
