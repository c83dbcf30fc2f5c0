-- Acknowledges messages that are still ours: the way of every successful batch.
-- Nobody else owns what was read under a lease that has not run out, so a living consumer needs no look at each id. After
-- a late renewal each id is looked up. An id that was recovered is in nobody's hands any more, and XACK does not find it.
-- KEYS  1 stream  2 retry  3 suspect  4 consumers  5 answer
-- ARGV  1 group  2 consumer  3 number of the call  4, 5, 6 how many ids of KEYS 1, 2, 3  7.. these ids
-- Returns how many were stale. Sent again under its number, it answers the same.
local group, consumer = ARGV[1], ARGV[2]
local expiry = redis.call('ZSCORE', KEYS[4], consumer)
local time = redis.call('TIME')
local alive = expiry and tonumber(expiry) > time[1] * 1000 + time[2] / 1000

local function mine(key, first, last)
  local ids = {}
  for i = first, last do
    local pending = redis.pcall('XPENDING', key, group, ARGV[i], ARGV[i], 1, consumer)
    -- Without the group nothing is pending, and nobody owns anything.
    if pending.err and not string.find(pending.err, 'NOGROUP', 1, true) then return nil, pending end
    if pending[1] then ids[#ids + 1] = ARGV[i] end
  end
  return ids
end

local stale, first = 0, 7
for k = 1, 3 do
  local key, count = KEYS[k], tonumber(ARGV[3 + k])
  local ids, from, to = ARGV, first, first + count - 1
  if count > 0 and not alive then
    local own, failed = mine(key, from, to)
    if failed then return failed end
    ids, from, to = own, 1, #own
  end
  stale = stale + count
  for at = from, to, 4000 do
    local upto = math.min(at + 3999, to)
    stale = stale - redis.call('XACK', key, group, unpack(ids, at, upto))
    -- The retry and the suspect stream are this group's own: what is done there is deleted.
    if k > 1 then redis.call('XDEL', key, unpack(ids, at, upto)) end
  end
  first = first + count
end
return first_answer(KEYS[5], ARGV[3], stale, first - 7)
