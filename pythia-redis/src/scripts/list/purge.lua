-- Deletes lists and sorted sets whole; Redis frees them in the background.
-- KEYS  what to delete
-- Returns how many messages that were.
local purged = 0
for _, key in ipairs(KEYS) do
  local sorted = redis.call('TYPE', key).ok == 'zset'
  purged = purged + redis.call(sorted and 'ZCARD' or 'LLEN', key)
  redis.call('UNLINK', key)
end
return purged
