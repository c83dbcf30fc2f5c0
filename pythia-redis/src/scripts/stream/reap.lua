-- Removes consumers that have been silent for two leases and hold nothing. What such a one still holds is marked as overdue,
-- for the next recovery: that is needed only after the server's clock went back, when idle times start again at zero.
-- KEYS  1 stream  2 retry  3 suspect  4 consumers  5 clock
-- ARGV  1 group  2 lease, ms  3 how many consumers at most
-- Returns how many were removed.
local group, lease, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
if now < tonumber(redis.call('HGET', KEYS[5], 'grace') or 0) then return 0 end

-- No lease that was given by this clock can end later than that.
for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. now + lease, '+inf', 'LIMIT', 0, budget)) do
  redis.call('ZADD', KEYS[4], now + lease, consumer)
end

local removed = 0
for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now - lease, 'LIMIT', 0, budget)) do
  local holds = false
  for k = 1, 3 do
    local rows = redis.call('XPENDING', KEYS[k], group, '-', '+', 100, consumer)
    for _, row in ipairs(rows) do
      holds = true
      if row[3] < lease then
        redis.call('XCLAIM', KEYS[k], group, consumer, 0, row[1], 'IDLE', lease, 'JUSTID')
      end
    end
  end
  -- DELCONSUMER drops what is pending, so it comes only in the script that has seen that nothing is.
  if not holds then
    for k = 1, 3 do redis.call('XGROUP', 'DELCONSUMER', KEYS[k], group, consumer) end
    redis.call('ZREM', KEYS[4], consumer)
    removed = removed + 1
  end
end
return removed
