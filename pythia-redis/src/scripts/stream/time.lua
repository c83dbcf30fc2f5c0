-- Put before the scripts that look at the time: the server's, the only one that all workers share.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Notes a sign of life of some worker, and answers until when nothing may be recovered. While Redis, or every worker, was
-- away for more than half a lease nobody could renew, so the owners then get half a lease to do so.
local function grace(clock, now, lease)
  local seen = tonumber(redis.call('HGET', clock, 'seen') or 0)
  local ends = tonumber(redis.call('HGET', clock, 'grace') or 0)
  if now - seen > lease / 2 or now < seen then ends = now + lease / 2 end
  redis.call('HSET', clock, 'seen', now, 'grace', ends)
  return ends
end

