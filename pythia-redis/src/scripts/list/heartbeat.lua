-- Renews a consumer's lease, unless all that it held was recovered and it was removed.
-- KEYS  1 consumers  2 held by the consumer
-- ARGV  1 consumer  2 lease, ms  3.. claims that it believes to hold
-- Returns {which of these claims are lost}.
-- A full Redis refuses a first write that may take memory, and lets through what comes after another.
redis.call('HDEL', KEYS[2], '')
redis.call('ZADD', KEYS[1], 'XX', now_ms() + ARGV[2], ARGV[1])

local lost = {}
for first = 3, #ARGV, 4000 do
  local last = math.min(first + 3999, #ARGV)
  for i, left in ipairs(redis.call('HMGET', KEYS[2], unpack(ARGV, first, last))) do
    if not left then lost[#lost + 1] = tonumber(ARGV[first + i - 1]) end
  end
end
return lost
