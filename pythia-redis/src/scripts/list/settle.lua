-- Carries out dispositions. A batch that is gone was recovered from this consumer, and nothing in it is its to settle: that
-- the key exists is the fence. Each call has a number, one more with each new call, and a call that was carried out is
-- answered again, not carried out again.
-- KEYS  1 held by the consumer  2 ready  3 delayed  4 dead  5 control  6.. batches
-- ARGV  1 number of the call  2 how many moves there are in all, then for each batch:
--       claim, how many of its messages are settled, form, how many indices follow, these, how many moves follow, these
--       form: `rest` if that is all that is left of the batch (its acks need no indices), `part`, or `care` if it may be
--             settled in part already; indices, from 0: acks
--       moves, five arguments each: index, and
--         `release`, ``, ``, ``                       back to the head, as it was; the newest first, so that order is kept
--         `retry`, ms to wait, 16-byte name, frame    to the delayed messages
--         `dead`, ``, ``, letter                      to the dead letters
-- Returns how many were stale. Tells the promoter of a message that is due before all others.
local held, ready, delayed, dead, control = unpack(KEYS, 1, 5)
local call = tonumber(ARGV[1])

local seen = redis.call('HMGET', held, 'settle', 'stale')
if seen[1] and call <= tonumber(seen[1]) then
  return call == tonumber(seen[1]) and tonumber(seen[2]) or 0
end

local died_at, waits_from, first_due
if ARGV[2] ~= '0' then
  -- A key of another type is found before anything has changed.
  redis.call('LLEN', ready)
  redis.call('ZCARD', dead)
  died_at = now()
  waits_from = math.floor(died_at)
  first_due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
end

local earliest
local function move(message, what, wait, name, bytes)
  if what == 'release' then
    redis.call('RPUSH', ready, message)
  elseif what == 'dead' then
    redis.call('ZADD', dead, died_at, bytes)
  else
    local due = waits_from + wait
    redis.call('ZADD', delayed, due, name .. bytes)
    earliest = math.min(earliest or due, due)
  end
end

local at, stale, settled = 3, 0, 0
for k = 6, #KEYS do
  local batch, claim, count, form, acks = KEYS[k], ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], tonumber(ARGV[at + 3])
  local moves_at = at + 4 + acks
  local moves = tonumber(ARGV[moves_at])
  local gone = 0
  if form == 'rest' and moves == 0 then
    if redis.call('DEL', batch) == 0 then gone = count else redis.call('HDEL', held, claim) end
  elseif redis.call('EXISTS', batch) == 0 then
    gone = count
  else
    -- A full Redis must be drained: it refuses a script's first write if that may take memory. This one can't, and what
    -- comes after a first write is let through.
    redis.call('HDEL', held, '')
    for i = moves_at + 1, moves_at + 5 * moves, 5 do
      local index = ARGV[i]
      local message = redis.call('LINDEX', batch, index)
      if message and message ~= TOMB then
        move(message, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
        if form ~= 'rest' then redis.call('LSET', batch, index, TOMB) end
      else
        gone = gone + 1
      end
    end
    for i = at + 4, moves_at - 1 do
      local index = ARGV[i]
      if form == 'care' and (redis.call('LINDEX', batch, index) or TOMB) == TOMB then
        gone = gone + 1
      else
        redis.call('LSET', batch, index, TOMB)
      end
    end
    if form == 'rest' or redis.call('HINCRBY', held, claim, gone - count) <= 0 then
      redis.call('DEL', batch)
      redis.call('HDEL', held, claim)
    end
  end
  stale = stale + gone
  settled = settled + count - gone
  at = moves_at + 5 * moves + 1
end

-- Where nothing was settled there is nothing to repeat; and a key for a consumer that is gone would stay for ever.
if settled > 0 then redis.call('HSET', held, 'settle', call, 'stale', stale) end

if earliest and (not first_due or earliest < tonumber(first_due)) then
  -- Only a hint: without the permission to publish it is done without.
  redis.pcall('PUBLISH', control, 'due')
end
return stale
