-- Renews a consumer's lease, unless all that it held was recovered and it was removed. Hands back what the consumer has
-- settled and Redis holds all the same: a restart or a fail-over may have undone the settle, and as long as the consumer
-- lives, nobody else would look for it.
-- KEYS  1 ready  2 consumers  3 held by the consumer
-- ARGV  1 consumer  2 lease, ms  3 what the names of its batches begin with  4 the last claim that it was given
--       5.. the claims of which it has yet to settle something
-- Returns {which of these claims are lost}.
local ready, consumers, held = unpack(KEYS)
-- A full Redis refuses a first write that may take memory, and lets through what comes after another.
redis.call('HDEL', held, '')
redis.call('ZADD', consumers, 'XX', now_ms() + ARGV[2], ARGV[1])

local lost, open = {}, {}
for first = 5, #ARGV, 4000 do
  local last = math.min(first + 3999, #ARGV)
  for i, left in ipairs(redis.call('HMGET', held, unpack(ARGV, first, last))) do
    local claim = tonumber(ARGV[first + i - 1])
    open[claim] = true
    if not left then lost[#lost + 1] = claim end
  end
end

local forgotten = {}
for _, field in ipairs(redis.call('HKEYS', held)) do
  local claim = tonumber(field)
  if claim and claim <= tonumber(ARGV[4]) and not open[claim] then forgotten[#forgotten + 1] = claim end
end
-- The newest first: each goes before the head. What is too much for one call is left to the next.
table.sort(forgotten, function(a, b) return a > b end)
local handed_back = 0
for _, claim in ipairs(forgotten) do
  if handed_back >= 1000 then break end
  claim = string.format('%.0f', claim)
  -- What can't be handed back, because something else is stored under the queue's name, keeps nobody from its leases.
  local done, count = pcall(hand_back, ready, held, ARGV[3] .. claim, claim)
  if not done then break end
  handed_back = handed_back + count
end
return lost
