-- How much is where, at the same cost however much it is.
-- KEYS  1 stream  2 retry  3 suspect  4 delayed of the queue  5 delayed of the group  6 dead
-- ARGV  1 group  2 start of a new group
-- Returns {ready, pending, delayed, dead, lag, ms that the first ready message has waited}; -1 for what is not known.
local group = ARGV[1]
local ready, pending, lag, first_ready = 0, 0, -1, nil

local now = now_ms()
for k = 1, 3 do
  local key, found = KEYS[k], nil
  local groups = redis.call('EXISTS', key) == 1 and redis.call('XINFO', 'GROUPS', key) or {}
  for _, reply in ipairs(groups) do
    if info(reply, 'name') == group then found = reply end
  end
  local length, unread, given = redis.call('XLEN', key), -1, nil
  if found then
    given = info(found, 'last-delivered-id')
    pending = pending + info(found, 'pending')
  elseif k > 1 or length == 0 or ARGV[2] == '0' then
    given, unread = '0-0', length
  end
  local first = given and redis.call('XRANGE', key, '(' .. given, '+', 'COUNT', 1)[1]
  if first then
    local ms = tonumber(string.match(first[1], '^%d+'))
    first_ready = math.min(first_ready or ms, ms)
  end
  if found and k > 1 then
    -- What was done is deleted from these, so what is not pending is unread.
    unread = math.max(length - info(found, 'pending'), 0)
  elseif found then
    -- 6.2 has no lag, later versions none after some deletions; that nothing is unread is known all the same.
    unread = not first and 0 or info(found, 'lag') or -1
    lag = unread
  end
  ready = (ready < 0 or unread < 0) and -1 or ready + unread
end

local delayed = redis.call('ZCARD', KEYS[4]) + redis.call('ZCARD', KEYS[5])
local dead = redis.call('XLEN', KEYS[6])
return { ready, pending, delayed, dead, lag, first_ready and math.max(now - first_ready, 0) or -1 }
