-- The second of the oldest event that merchant state may lack. KEYS: pending, of one or more partitions.
local oldest = false
for _, key in ipairs(KEYS) do
  local second = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  if second and (not oldest or second < oldest) then oldest = second end
end
return oldest
