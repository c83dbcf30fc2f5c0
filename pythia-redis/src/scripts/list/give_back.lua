-- Puts messages that were taken for good, and not begun, back at the head. Sent again, it does nothing: a message of this
-- kind may be lost, but not doubled.
-- KEYS  1 ready  2 done: keeps for a minute that this very call was carried out
-- ARGV  the messages, the newest first
-- Returns 1, or 0 if it was carried out before.
redis.call('LLEN', KEYS[1])
if not redis.call('SET', KEYS[2], 1, 'NX', 'PX', 60000) then return 0 end
for first = 1, #ARGV, 4000 do
  redis.call('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 3999, #ARGV)))
end
return 1
