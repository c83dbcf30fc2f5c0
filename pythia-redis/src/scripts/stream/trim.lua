-- Trims the stream, never past the floor: the first entry that some group has not been given or not acknowledged. Saves where
-- this group is to go on if it has to be made again. XTRIM MAXLEN knows no floor, so it is not used.
-- KEYS  1 stream  2 floor
-- ARGV  1 group  2 strategy: `none`, `processed`, `length` or `age`  3 length: entries to keep; age: ms to keep an entry
--       4 `~` whole nodes only, or `=`  5 how many entries at most
-- Returns {trimmed, 1 if there is more, how many entries are too many and kept by the floor (age: at most ARGV 5 are counted),
-- {the group that holds the floor}}.
local group, strategy, limit, exactness, budget = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])

if redis.call('EXISTS', KEYS[1]) == 0 then return { 0, 0, 0, {} } end

-- A full Redis refuses a first write that may take memory, and lets through what comes after another: it must not refuse to
-- note the floor, and with it what would make room.
redis.call('XDEL', KEYS[1], '0-0')

local floor, holder
for _, reply in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local name, given = info(reply, 'name'), info(reply, 'last-delivered-id')
  local first = redis.call('XPENDING', KEYS[1], name, '-', '+', 1)[1]
  local low = first and first[1] or after(given)
  if name == group then redis.call('SET', KEYS[2], first and before(low) or given) end
  if not floor or less(low, floor) then floor, holder = low, name end
end
if not floor or strategy == 'none' then return { 0, 0, 0, {} } end

-- What the strategy alone would keep begins here.
local target, excess = floor, 0
if strategy == 'length' then
  excess = redis.call('XLEN', KEYS[1]) - limit
  if excess <= 0 then return { 0, 0, 0, {} } end
  local head = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(excess, budget) + 1)
  -- To keep none there is no entry to stop at.
  target = #head > math.min(excess, budget) and head[#head][1] or floor
elseif strategy == 'age' then
  target = string.format('%.0f-0', math.max(now_ms() - limit, 0))
end

local held = less(floor, target)
local upto = held and floor or target
local trimmed
if exactness == '~' then
  trimmed = redis.call('XTRIM', KEYS[1], 'MINID', '~', upto, 'LIMIT', budget)
else
  -- An exact trim takes no limit, so the first entry beyond the budget is the limit.
  if strategy ~= 'length' then
    local head = redis.call('XRANGE', KEYS[1], '-', '(' .. upto, 'COUNT', budget + 1)
    if #head > budget then upto, held = head[#head][1], false end
  end
  trimmed = redis.call('XTRIM', KEYS[1], 'MINID', upto)
end

local over = 0
if held and strategy == 'length' then
  over = excess - trimmed
elseif held then
  over = #redis.call('XRANGE', KEYS[1], floor, '(' .. target, 'COUNT', budget)
end
return { trimmed, trimmed * 2 >= budget and 1 or 0, over, over > 0 and { holder } or {} }
