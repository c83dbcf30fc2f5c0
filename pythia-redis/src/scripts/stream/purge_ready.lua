-- Takes what is ready from this group, without handing it out. Other groups still get what is in the stream itself.
-- KEYS  1 stream  2 retry  3 suspect
-- ARGV  1 group  2 consumer to read as  3 how many of each key at most
-- Returns {purged, 1 if there is more}.
local group, consumer, budget = ARGV[1], ARGV[2], tonumber(ARGV[3])
local purged, more = 0, 0
for k = 1, 3 do
  -- NOACK: read, and never pending.
  local reply = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', budget, 'NOACK', 'STREAMS', KEYS[k], '>')
  local rows = reply and reply[1][2] or {}
  purged = purged + #rows
  if #rows == budget then more = 1 end
  if k > 1 then
    for _, row in ipairs(rows) do redis.call('XDEL', KEYS[k], row[1]) end
  end
  redis.call('XGROUP', 'DELCONSUMER', KEYS[k], group, consumer)
end
return { purged, more }
