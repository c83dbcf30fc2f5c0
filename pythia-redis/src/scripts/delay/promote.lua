-- Makes due messages of a list ready, the earliest first, and says when to look again. One worker at a time is told: if
-- all of them slept to the same due time, all of them would wake for every message.
-- KEYS  1 delayed  2 ready  3 promoter
-- ARGV  1 worker  2 how long it stays the promoter, ms  3 how many messages at most  4 about how many bytes
-- Returns {promoted, 1 if there is more, ms until the next is due, or -1 if there is none or another is the promoter}.
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

local next_due = tonumber(redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2])
if not next_due then return { #taken, 0, -1 } end
if next_due <= now then return { #taken, 1, -1 } end

local holder = redis.call('GET', promoter)
if holder and holder ~= ARGV[1] then return { #taken, 0, -1 } end
-- A first write that a full Redis refuses must not undo the rest: the promoter is only a convenience.
redis.pcall('SET', promoter, ARGV[1], 'PX', ARGV[2])
return { #taken, 0, next_due - now }
