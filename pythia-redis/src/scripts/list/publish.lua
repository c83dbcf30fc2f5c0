-- Publishes a batch of which some messages are delayed or have a dedupe key.
-- KEYS  1 ready  2 delayed  3 control  4.. one dedupe key for each message that has one
-- ARGV  1 how long dedupe keys are kept, ms, then four for each message: when (`` now, `+ms` from now, `ms` at that time),
--       which of KEYS is its dedupe key (0: none), 16 bytes that name it, its bytes
-- Returns {1 if it was published, 0 if its key is known, ..}. Tells the promoter of a message that is due before all others.
-- Sent again, it publishes only what is neither delayed nor has a dedupe key.
local ready, delayed, control = unpack(KEYS, 1, 3)
local window, now = ARGV[1], now_ms()
local first_due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
redis.call('LLEN', ready)

local published, push, earliest = {}, {}, nil
for i = 2, #ARGV, 4 do
  local at, dedupe, name, bytes = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local known = dedupe > 0 and not redis.call('SET', KEYS[dedupe], name, 'NX', 'PX', window)
  -- Its own name: this very message was published by a call whose answer was lost.
  published[#published + 1] = (not known or redis.call('GET', KEYS[dedupe]) == name) and 1 or 0
  if not known then
    local due = 0
    if at ~= '' then
      due = tonumber(at)
      if string.sub(at, 1, 1) == '+' then due = now + due end
    end
    if due > now then
      redis.call('ZADD', delayed, 'NX', due, name .. bytes)
      earliest = math.min(earliest or due, due)
    else
      push[#push + 1] = bytes
    end
  end
end
for first = 1, #push, 4000 do
  redis.call('LPUSH', ready, unpack(push, first, math.min(first + 3999, #push)))
end

if earliest and (not first_due or earliest < tonumber(first_due)) then
  -- Only a hint: without the permission to publish it is done without.
  redis.pcall('PUBLISH', control, 'due')
end
return published
