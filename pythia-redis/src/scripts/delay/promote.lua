-- Makes due messages of a list ready, the earliest first. One worker at a time is the promoter, and sleeps to the next due
-- time: if all of them did, all of them would wake for every message.
-- KEYS  1 delayed  2 ready  3 promoter
-- ARGV  1 worker  2 how long it stays the promoter, ms  3 how many messages at most  4 about how many bytes
-- Returns {promoted, 1 if there is more, 1 if this worker is the promoter, ms until the next is due, or -1 if none is}.
local delayed, ready, promoter = unpack(KEYS)
local now, budget, bytes_limit = now_ms(), tonumber(ARGV[3]), tonumber(ARGV[4])

-- A key of another type is found before anything has changed.
redis.call('LLEN', ready)
local promoted, bytes = 0, 0
while promoted < budget and bytes <= bytes_limit do
  -- One more than are done, and no more than are likely to fit: what is read and not moved is read in vain, by each call
  -- again, while the server does nothing else.
  local fit = math.floor((bytes_limit - bytes) / (bytes / math.max(promoted, 1) + 1)) + 1
  local count = math.min(promoted + 1, fit, budget - promoted, 4000)
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, count)
  if #due == 0 then break end
  local messages = {}
  for i, member in ipairs(due) do
    -- Behind the 16 bytes that keep two equal messages apart. They begin with a zero; what somebody has put there by hand
    -- does not, and is a message as it is.
    local named = #member >= 16 and string.byte(member) == 0
    messages[i] = named and string.sub(member, 17) or member
    bytes = bytes + #member
  end
  redis.call('ZREM', delayed, unpack(due))
  redis.call('LPUSH', ready, unpack(messages))
  promoted = promoted + #due
end

local holder = redis.call('GET', promoter)
local mine = not holder or holder == ARGV[1]
-- That a full Redis refuses this must not undo the rest: there is then no promoter for a while, or more than one.
if mine then redis.pcall('SET', promoter, ARGV[1], 'PX', ARGV[2]) end

local next_due = tonumber(redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2])
local wait = next_due and math.max(next_due - now, 0) or -1
return { promoted, wait == 0 and 1 or 0, mine and 1 or 0, wait }
