-- Put before the scripts that look at the time: the server's, the only one that all workers share.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

