-- The tiles of an entity inside Redis: the second execution of feature_store/tiles.py.
-- Every script starts with this text; PLAN, above it, is rendered from feature_store/definitions.py.
--
-- An entity is one hash: 'newest' is the second of its newest event, 'd20321' the day tile 20321 as 'n3 a4521 f1'
-- (measure letter, integer), 'sequence:3' and 'label:3' how far it follows partition 3 of the log and of the labels. Numbers are doubles: exact below 2^53, see MAX_AMOUNT.

local function unpack_tile(text)
  local counts = {}
  for measure, value in string.gmatch(text, '(%a)(%d+)') do counts[measure] = tonumber(value) end
  return counts
end

local function pack_tile(counts, measures)
  local parts = {}
  for _, measure in ipairs(measures) do
    if counts[measure] then parts[#parts + 1] = measure .. string.format('%.0f', counts[measure]) end
  end
  return table.concat(parts, ' ')
end

-- Moves the newest event forward and drops the tiles that fall out of what is kept. Returns the newest second.
local function advance(key, second)
  local newest = tonumber(redis.call('HGET', key, 'newest'))
  if newest and second <= newest then return newest end
  redis.call('HSET', key, 'newest', string.format('%.0f', second))
  if not newest then return second end
  for letter, tile in pairs(PLAN.tiles) do
    local first = math.floor(newest / tile.seconds) - tile.kept
    local last = math.min(math.floor(second / tile.seconds) - tile.kept - 1, math.floor(newest / tile.seconds))
    local gone = {}
    for number = first, last do gone[#gone + 1] = letter .. string.format('%.0f', number) end
    if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  end
  return second
end

-- Counts values (measure letter -> integer) at event time `second` in every kind of tile that stores them.
local function add(key, entity, second, values)
  local newest = advance(key, second)
  for letter, measures in pairs(PLAN.stored[entity]) do
    local tile = PLAN.tiles[letter]
    local number = math.floor(second / tile.seconds)
    if number >= math.floor(newest / tile.seconds) - tile.kept then
      local field = letter .. string.format('%.0f', number)
      local counts = unpack_tile(redis.call('HGET', key, field) or '')
      local changed = false
      for _, measure in ipairs(measures) do
        local value = values[measure]
        if value and value > 0 then
          changed = true
          if measure == PLAN.largest then
            counts[measure] = math.max(counts[measure] or 0, value)
          else
            counts[measure] = (counts[measure] or 0) + value
          end
        end
      end
      if changed then redis.call('HSET', key, field, pack_tile(counts, measures)) end
    end
  end
  redis.call('EXPIRE', key, PLAN.expire)
end

-- Values as they come in ARGV: measure letter, integer, and so on; `length` arguments from `first`.
local function values_from(first, length)
  local values = {}
  for index = first, first + length - 1, 2 do values[ARGV[index]] = tonumber(ARGV[index + 1]) end
  return values
end

local function measured(counts, measure)
  if measure == PLAN.genuine then return math.max(0, (counts[PLAN.count] or 0) - (counts[PLAN.frauds] or 0)) end
  return counts[measure] or 0
end

local window_ops = {
  total = function(window, a)
    local total = 0
    for _, tile in ipairs(window) do
      local value = measured(tile.counts, a.measure)
      if a.measure == PLAN.largest then total = math.max(total, value) else total = total + value end
    end
    return total
  end,
  since = function(window, a, last)
    for _, tile in ipairs(window) do
      if measured(tile.counts, a.measure) > 0 then return last - tile.number end
    end
    return -1
  end,
  run = function(window)
    local length = 0
    for _, tile in ipairs(window) do
      if measured(tile.counts, PLAN.genuine) > 0 then break end
      length = length + measured(tile.counts, PLAN.frauds)
    end
    return length
  end,
  run_age = function(window, _, last)
    local age = -1
    for _, tile in ipairs(window) do
      if measured(tile.counts, PLAN.genuine) > 0 then break end
      if measured(tile.counts, PLAN.frauds) > 0 then age = last - tile.number end
    end
    return age
  end,
}

-- Reads every aggregate of the entity as of event time `second`, in the order of AGGREGATES[entity]; and its positions
-- in the log ('sequence:3', '118', ...).
local function read(key, entity, second)
  local newest, tiles, positions = nil, {}, {}
  for letter in pairs(PLAN.tiles) do tiles[letter] = {} end
  local fields = redis.call('HGETALL', key)
  for index = 1, #fields, 2 do
    local letter, number = string.match(fields[index], '^(%a)(%d+)$')
    if letter and tiles[letter] then
      table.insert(tiles[letter], {number = tonumber(number), counts = unpack_tile(fields[index + 1])})
    elseif fields[index] == 'newest' then
      newest = tonumber(fields[index + 1])
    elseif string.find(fields[index], ':', 1, true) then
      positions[#positions + 1] = fields[index]
      positions[#positions + 1] = fields[index + 1]
    end
  end
  for _, numbered in pairs(tiles) do
    table.sort(numbered, function(one, other) return one.number > other.number end)
  end

  local result = {}
  for _, a in ipairs(PLAN.aggregates[entity]) do
    local size = PLAN.tiles[a.tile].seconds
    if a.op == 'elapsed' then
      local known = newest and second - newest <= a.window * size
      result[#result + 1] = known and math.max(0, second - newest) or -1
    else
      local last = math.floor(second / size)
      if a.delay > 0 then last = math.floor((second - a.delay) / size) - 1 end
      local window = {}
      for _, tile in ipairs(tiles[a.tile]) do
        if tile.number <= last and tile.number > last - a.window then window[#window + 1] = tile end
      end
      result[#result + 1] = window_ops[a.op](window, a, last)
    end
  end
  return result, positions
end
