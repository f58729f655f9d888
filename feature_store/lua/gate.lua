-- The gate of a partition, see feature_store/gate.py. Its text is the epochs of the partition's log, then '!' and a token
-- while a recovery has closed it, then '@' and the run of the server on which that was written.

local CLOSED = redis.error_reply('CLOSED this partition is not open: its state may lack what the log has')

local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

-- Whether the gate is as its caller found it, and the server has not been started again since.
local function stands(key, text)
  return redis.call('GET', key) == text and string.match(text, '@(%x+)$') == run_id()
end

local function is_open(key)
  local text = redis.call('GET', key)
  return text and not string.find(text, '!', 1, true) and stands(key, text) and text
end
