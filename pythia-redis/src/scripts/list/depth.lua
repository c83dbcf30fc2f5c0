-- How much is where. Costs the same however long the queue is, and a little for each consumer.
-- KEYS  1 ready  2 inbox  3 consumers  4 delayed  5 dead
-- ARGV  1 what the names of the other keys begin with
-- Returns {ready, pending, delayed, dead, ms that the oldest ready message has waited, or -1 if it does not say}.
local ready, inbox, consumers, delayed, dead = unpack(KEYS)

local pending = 0
for _, consumer in ipairs(redis.call('ZRANGE', consumers, 0, -1)) do
  local held = redis.call('HGETALL', ARGV[1] .. ':held:' .. consumer)
  for i = 1, #held, 2 do
    if tonumber(held[i]) then pending = pending + held[i + 1] end
  end
end

local oldest = redis.call('LINDEX', inbox, -1) or redis.call('LINDEX', ready, -1)
local since = oldest and tonumber(header_of(oldest, 'pythia-at'))
return {
  redis.call('LLEN', inbox) + redis.call('LLEN', ready), pending,
  redis.call('ZCARD', delayed), redis.call('ZCARD', dead), since and math.max(now_ms() - since, 0) or -1,
}
