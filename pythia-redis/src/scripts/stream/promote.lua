-- Makes due messages ready: those of the queue in its stream, for all groups; those of the group in its own streams.
-- One worker at a time is told the next due time and sleeps to it, so that not all of them wake for every message.
-- KEYS  1 stream  2 retry  3 suspect  4 delayed of the queue  5 delayed of the group  6 promoter
-- ARGV  1 worker  2 how long it stays the promoter, ms  3 how many at most
-- Returns {promoted, 1 if there is more, ms until the next is due, or -1 if there is none or another is the promoter}.
local BYTES = 4194304   -- about how many it moves at most, however few messages that are
local worker, ttl, budget = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now, promoted, bytes, next_due = now_ms(), 0, 0, nil
-- A full Redis refuses a first write that may take memory, and lets through what comes after another.
redis.call('ZREM', KEYS[5], '')
for k = 4, 5 do
  while promoted < budget and bytes <= BYTES do
    -- One more than are done, and no more than are likely to fit: what is read and not moved is read in vain, by each call
    -- again, while the server does nothing else.
    local fit = math.floor((BYTES - bytes) / (bytes / math.max(promoted, 1) + 1)) + 1
    local count = math.min(promoted + 1, fit, budget - promoted)
    local due = redis.call('ZRANGEBYSCORE', KEYS[k], '-inf', now, 'LIMIT', 0, count)
    if #due == 0 then break end
    for _, member in ipairs(due) do
      local fields = parse(member, 17)
      if k == 4 then
        add(KEYS[1], {}, fields, 1)
      else
        local of, from = meta(fields, '0-0', false)
        add_ready(KEYS[2], KEYS[3], of, fields, from)
      end
      redis.call('ZREM', KEYS[k], member)
      promoted, bytes = promoted + 1, bytes + #member
    end
  end
  local first = redis.call('ZRANGE', KEYS[k], 0, 0, 'WITHSCORES')
  if first[2] then next_due = math.min(next_due or math.huge, tonumber(first[2])) end
end
if not next_due then return { promoted, 0, -1 } end
if next_due <= now then return { promoted, 1, -1 } end

local promoter = redis.call('GET', KEYS[6])
if promoter and promoter ~= worker then return { promoted, 0, -1 } end
redis.call('SET', KEYS[6], worker, 'PX', ttl)
return { promoted, 0, next_due - now }
