-- Hands back at once, as it was, what a consumer was given and has not passed on; removes the consumer if nothing is left.
-- KEYS  1 stream  2 retry  3 suspect  4 consumers
-- ARGV  1 group  2 consumer  3 how many at most  4, 5, 6 for KEYS 1, 2, 3 the last id that it has passed on
-- Returns {released, 1 if there is more}. Sent again, it goes on where it was.
local group, consumer, budget = ARGV[1], ARGV[2], tonumber(ARGV[3])
local released, more = 0, 0
-- A full Redis refuses a first write that may take memory, and lets through what comes after another.
redis.call('ZREM', KEYS[4], '')
for k = 1, 3 do
  local key, room = KEYS[k], budget - released
  local rows = room > 0 and redis.call('XPENDING', key, group, '(' .. ARGV[3 + k], '+', room, consumer) or {}
  for _, row in ipairs(rows) do
    local id = row[1]
    local entry = redis.call('XRANGE', key, id, id)[1]
    if entry then
      local of, from = meta(entry[2], id, k == 1)
      add_ready(KEYS[2], KEYS[3], of, entry[2], from)
    end
    remove(key, group, id, k > 1)
  end
  released = released + #rows
  if room <= 0 or #rows == room then more = 1 end
end

local holds = more == 1
for k = 1, 3 do
  holds = holds or #redis.call('XPENDING', KEYS[k], group, '-', '+', 1, consumer) > 0
end
-- One that still holds what it has passed on is left to its lease.
if not holds then
  for k = 1, 3 do redis.call('XGROUP', 'DELCONSUMER', KEYS[k], group, consumer) end
  redis.call('ZREM', KEYS[4], consumer)
end
return { released, more }
