-- Makes due messages ready: those of the queue in its stream, for all groups; those of the group in its own streams.
-- One worker at a time is told the next due time and sleeps to it, so that not all of them wake for every message.
-- What is no message of ours goes to the dead letters as it is: left in place, it would be in the way of all behind it.
-- KEYS  1 stream  2 retry  3 suspect  4 delayed of the queue  5 delayed of the group  6 promoter  7 dead
-- ARGV  1 worker  2 how long it stays the promoter, ms  3 how many at most
-- Returns {promoted, dead, 1 if there is more, ms until the next is due, or -1 if there is none or another is the promoter}.
local BYTES = 4194304   -- about how many it moves at most, however few messages that are
local worker, ttl, budget = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now, promoted, dead, bytes, next_due = now_ms(), 0, 0, 0, nil
-- A full Redis refuses a first write that may take memory, and lets through what comes after another.
redis.call('ZREM', KEYS[5], '')
for k = 4, 5 do
  while promoted + dead < budget and bytes <= BYTES do
    local done = promoted + dead
    -- One more than are done, and no more than are likely to fit: what is read and not moved is read in vain, by each call
    -- again, while the server does nothing else.
    local fit = math.floor((BYTES - bytes) / (bytes / math.max(done, 1) + 1)) + 1
    local count = math.min(done + 1, fit, budget - done)
    local due = redis.call('ZRANGEBYSCORE', KEYS[k], '-inf', now, 'LIMIT', 0, count)
    if #due == 0 then break end
    for _, member in ipairs(due) do
      local fields = parse(member, 17)
      if not fields then
        add(KEYS[7], { 'pythia-dead', 'decode a delayed message that no worker has put there' }, { 'member', member }, 1)
        dead = dead + 1
      elseif k == 4 then
        add(KEYS[1], {}, fields, 1)
      else
        local of, from = meta(fields, '0-0', false)
        add_ready(KEYS[2], KEYS[3], of, fields, from)
      end
      redis.call('ZREM', KEYS[k], member)
      promoted, bytes = promoted + (fields and 1 or 0), bytes + #member
    end
  end
  local first = redis.call('ZRANGE', KEYS[k], 0, 0, 'WITHSCORES')
  if first[2] then next_due = math.min(next_due or math.huge, tonumber(first[2])) end
end
if not next_due then return { promoted, dead, 0, -1 } end
if next_due <= now then return { promoted, dead, 1, -1 } end

local promoter = redis.call('GET', KEYS[6])
if promoter and promoter ~= worker then return { promoted, dead, 0, -1 } end
redis.call('SET', KEYS[6], worker, 'PX', ttl)
return { promoted, dead, 0, next_due - now }
