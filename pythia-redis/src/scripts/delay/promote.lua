-- Makes due messages of a list ready, the earliest first. One worker at a time is the promoter, and sleeps to the next due
-- time: if all of them did, all of them would wake for every message.
-- KEYS  1 delayed  2 ready  3 promoter
-- ARGV  1 worker  2 how long it stays the promoter, ms  3 how many messages at most  4 about how many bytes
-- Returns {promoted, 1 if there is more, 1 if this worker is the promoter, ms until the next is due, or -1 if none is}.
local delayed, ready, promoter = unpack(KEYS)
local now, bytes_limit = now_ms(), tonumber(ARGV[4])

-- A key of another type is found before anything has changed.
redis.call('LLEN', ready)
local bytes, taken, messages = 0, {}, {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, ARGV[3])) do
  if bytes > bytes_limit then break end
  taken[#taken + 1] = member
  -- Behind the 16 bytes that keep two equal messages apart.
  messages[#messages + 1] = string.sub(member, 17)
  bytes = bytes + #member
end
for first = 1, #taken, 4000 do
  local last = math.min(first + 3999, #taken)
  redis.call('ZREM', delayed, unpack(taken, first, last))
  redis.call('LPUSH', ready, unpack(messages, first, last))
end

local holder = redis.call('GET', promoter)
local mine = not holder or holder == ARGV[1]
-- That a full Redis refuses this must not undo the rest: there is then no promoter for a while, or more than one.
if mine then redis.pcall('SET', promoter, ARGV[1], 'PX', ARGV[2]) end

local next_due = tonumber(redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2])
local wait = next_due and math.max(next_due - now, 0) or -1
return { #taken, wait == 0 and 1 or 0, mine and 1 or 0, wait }
