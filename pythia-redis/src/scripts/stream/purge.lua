-- Deletes keys whole: streams and sorted sets.
-- KEYS  what to delete
-- Returns how many entries and members that were.
local purged = 0
for _, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'stream' then purged = purged + redis.call('XLEN', key) end
  if kind == 'zset' then purged = purged + redis.call('ZCARD', key) end
  redis.call('UNLINK', key)
end
return purged
