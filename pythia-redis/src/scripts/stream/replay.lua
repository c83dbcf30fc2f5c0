-- Moves a group to another point of its stream, and makes the group there if there is none.
-- KEYS  1 stream  2 floor
-- ARGV  1 group  2 an id, `0` or `$`
-- Returns 1. What is pending stays pending. Sent again, it does the same again.
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if made.err then
  if not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], ARGV[2])
end
-- The saved floor lies elsewhere; the next upkeep saves the new one.
redis.call('DEL', KEYS[2])
return 1
