-- Hands back, as it was, a claim whose answer never arrived, and removes the consumer unless it still holds others: these
-- are left to its lease. Sent again, it finds nothing.
-- KEYS  1 ready  2 consumers  3 held by the consumer  4 batch
-- ARGV  1 consumer  2 claim
-- Returns how many were handed back.
local ready, consumers, held, batch = unpack(KEYS)
local messages, back = redis.call('LRANGE', batch, 0, -1), {}
for i = #messages, 1, -1 do
  if messages[i] ~= TOMB then back[#back + 1] = messages[i] end
end
if #messages > 0 then
  redis.call('DEL', batch)
  redis.call('HDEL', held, ARGV[2])
  if #back > 0 then redis.call('RPUSH', ready, unpack(back)) end
end

for _, field in ipairs(redis.call('HKEYS', held)) do
  if tonumber(field) then return #back end
end
redis.call('ZREM', consumers, ARGV[1])
redis.call('DEL', held)
return #back
