-- Put before the scripts that look at the time: the server's, the only one that all workers share.

-- In milliseconds since the epoch, to the microsecond.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

local function now_ms()
  return math.floor(now())
end

