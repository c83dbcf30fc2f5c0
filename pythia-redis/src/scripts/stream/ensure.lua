-- Makes a consumer group, or makes it again, and registers a consumer.
-- KEYS  1 stream  2 retry  3 suspect  4 consumers  5 floor  6 clock
-- ARGV  1 group  2 consumer  3 lease, ms  4 start of a new group: an id, `0` or `$`  5 `first`, or `again` if the group is
--       known to have been there  6 an id to move the group to, once, or empty
-- Returns 1 if it made the group, otherwise 0. Sent again, it finds all of it done.
local group, consumer, lease, start, mode, replay = unpack(ARGV)

-- A full Redis must be drained: it refuses a script's first write if that may take memory. This one can't, and what comes
-- after a first write is let through.
redis.call('HDEL', KEYS[6], '')

local function create(key, id)
  local made = redis.pcall('XGROUP', 'CREATE', key, group, id, 'MKSTREAM')
  if not made.err then return 1 end
  if string.find(made.err, 'BUSYGROUP', 1, true) then return 0 end
  return made
end

-- A group that was there goes on from its saved floor, and a stream that was emptied begins anew: never at the end, where
-- what came meanwhile would be passed over.
local floor = redis.call('GET', KEYS[5])
local stream = redis.pcall('XINFO', 'STREAM', KEYS[1])
if stream.err and string.find(stream.err, 'WRONGTYPE', 1, true) then return stream end
local last = not stream.err and info(stream, 'last-generated-id') or '0-0'
if floor and not less(last, floor) then
  start = floor
elseif floor or mode == 'again' then
  start = '0'
end

local made = create(KEYS[1], start)
if type(made) == 'table' then return made end
if made == 1 then
  redis.call('SET', KEYS[5], start == '$' and last or start == '0' and '0-0' or start)
end
-- The group's own streams are read from their beginning: all that is in them is waiting for this group.
for k = 2, 3 do
  local own = create(KEYS[k], '0')
  if type(own) == 'table' then return own end
end

if replay ~= '' and redis.call('HGET', KEYS[6], 'replayed') ~= replay then
  redis.call('XGROUP', 'SETID', KEYS[1], group, replay)
  redis.call('HSET', KEYS[6], 'replayed', replay)
  redis.call('DEL', KEYS[5])
end

redis.call('ZADD', KEYS[4], now_ms() + lease, consumer)
return made
