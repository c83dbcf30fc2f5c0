-- Publishes a batch in one call.
-- KEYS  1 stream  2 delayed of the queue  3.. one dedupe key for each message that has one
-- ARGV  1 `now`, then one frame for each message: all are for now, none has a dedupe key
--    or 1 how long dedupe keys are kept, ms, then four for each message: when (`` now, `+ms` from now, `ms` at that time),
--       which of KEYS is its dedupe key (0: none), 16 bytes that name it, its body
-- Returns {{1 if it was published, 0 if its key is known, ..}, ms until the first delayed message if this call put it there,
-- otherwise -1}; for `now` only {{}, -1}. Sent again, messages without a dedupe key are published again.
if ARGV[1] == 'now' then
  for i = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'pythia', ARGV[i]) end
  return { {}, -1 }
end

local window, now = ARGV[1], now_ms()
local published, earliest = {}, nil
for i = 2, #ARGV, 4 do
  local at, dedupe, name, body = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  local known = dedupe > 0 and redis.call('GET', KEYS[dedupe])
  if known then
    -- Its own name: this very message was published by a call whose answer was lost.
    published[#published + 1] = known == name and 1 or 0
  else
    local due = 0
    if at ~= '' then
      due = tonumber(at)
      if string.sub(at, 1, 1) == '+' then due = now + due end
    end
    if due > now then
      redis.call('ZADD', KEYS[2], due, name .. body)
      earliest = math.min(earliest or due, due)
    else
      add(KEYS[1], {}, parse(body, 1), 1)
    end
    -- Last, so that a message that was refused (no memory left) is not remembered.
    if dedupe > 0 then redis.call('SET', KEYS[dedupe], name, 'PX', window) end
    published[#published + 1] = 1
  end
end

if earliest then
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if tonumber(first[2]) >= earliest then return { published, earliest - now } end
end
return { published, -1 }
