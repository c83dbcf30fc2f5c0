-- Hands back, as it was, a claim whose answer never arrived, and removes the consumer unless it still holds others: these
-- are left to its lease. Sent again, it finds nothing.
-- KEYS  1 ready  2 consumers  3 held by the consumer  4 batch
-- ARGV  1 consumer  2 claim
-- Returns how many were handed back.
local ready, consumers, held, batch = unpack(KEYS)
local handed_back = hand_back(ready, held, batch, ARGV[2])

for _, field in ipairs(redis.call('HKEYS', held)) do
  if tonumber(field) then return handed_back end
end
redis.call('ZREM', consumers, ARGV[1])
redis.call('DEL', held)
return handed_back
