-- Hands back what consumers held that have been silent for a lease: to the head, in its old order, one crash more; at the
-- limit of attempts to the dead letters. Sent again, it goes on where it was.
-- KEYS  1 ready  2 inbox  3 consumers  4 dead  5 clock
-- ARGV  1 what the names of the other keys begin with  2 lease, ms  3 limit of attempts (failures and crashes)
--       4 how many messages at most; a batch is never torn, so there can be one batch more
-- Returns {recovered, dead, 1 if there is more}.
local ready, inbox, consumers, dead, clock = unpack(KEYS)
local base, lease, limit, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local died_at = now()
local now = math.floor(died_at)

-- A key of another type is found before anything has changed.
redis.call('LLEN', ready)
redis.call('ZCARD', dead)
local seen = tonumber(redis.call('GET', clock) or 0)
-- What is moved takes no more memory, so a full Redis must not refuse it: it lets through what comes after a first write
-- that can't take any.
redis.call('DEL', clock)
redis.call('SET', clock, now)

if now < seen then
  -- The server's clock went back: no lease that it gives ends later than this.
  for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', consumers, '(' .. now + lease, '+inf')) do
    redis.call('ZADD', consumers, now + lease, consumer)
  end
elseif now - seen > lease / 2 then
  -- Redis, or everybody who does this, was away: its owners could not renew, and get half a lease to do so. The odd half
  -- of a millisecond marks who has had it, so that a slow round of upkeep can't put it off for ever.
  local silent = redis.call('ZRANGEBYSCORE', consumers, '-inf', '(' .. now + lease / 2, 'WITHSCORES')
  for i = 1, #silent, 2 do
    if tonumber(silent[i + 1]) % 1 == 0 then
      redis.call('ZADD', consumers, math.floor(now + lease / 2) + 0.5, silent[i])
    end
  end
end

-- The message after one more crash, and how many attempts that makes.
local function crashed(message, id)
  if not payload_at(message) then
    return frame(1, 0, header('pythia-id', id), message), 1
  end
  local crashes, failures = string.byte(message, 5, 6)
  crashes = math.min(crashes + 1, 255)
  return string.sub(message, 1, 4) .. string.char(crashes) .. string.sub(message, 6), crashes + failures
end

local recovered, died = 0, 0
local function recover(consumer, claim)
  local batch, back = base .. ':batch:' .. consumer .. ':' .. claim, {}
  local messages = redis.call('LRANGE', batch, 0, -1)
  for i = #messages, 1, -1 do
    if messages[i] ~= TOMB then
      local id = consumer .. '/' .. claim .. '/' .. (i - 1)
      local message, attempts = crashed(messages[i], id)
      -- What had neighbours is not known to be what killed its worker. It is a suspect soon, and then it has none.
      if attempts >= limit and #messages == 1 then
        local crashes = string.byte(message, 5)
        local headers = header('pythia-dead', 'crashed') .. header('pythia-dead-from', id)
          .. header('pythia-dead-error', 'held by ' .. crashes .. ' workers that died or fell silent')
        redis.call('ZADD', dead, died_at, frame(0, 0, headers, message))
        died = died + 1
      else
        back[#back + 1] = message
      end
    end
  end
  if #back > 0 then redis.call('RPUSH', ready, unpack(back)) end
  redis.call('DEL', batch)
  recovered = recovered + #back
end

local overdue = redis.call('ZRANGEBYSCORE', consumers, '-inf', now, 'LIMIT', 0, 10)
local more = #overdue == 10
for _, consumer in ipairs(overdue) do
  local held, claims = base .. ':held:' .. consumer, {}
  for _, field in ipairs(redis.call('HKEYS', held)) do
    local claim = tonumber(field)
    if claim then claims[#claims + 1] = claim end
  end
  -- The newest first: each goes before the head.
  table.sort(claims, function(a, b) return a > b end)
  local left = #claims
  for _, claim in ipairs(claims) do
    if recovered + died >= budget then break end
    claim = string.format('%.0f', claim)
    recover(consumer, claim)
    redis.call('HDEL', held, claim)
    left = left - 1
  end
  if left > 0 then more = true break end
  redis.call('ZREM', consumers, consumer)
  redis.call('DEL', held)
end

-- The inbox is emptied by whoever claims next. Plain clients don't, so without a consumer its messages go back.
if redis.call('EXISTS', consumers) == 0 then
  local left = redis.call('LLEN', inbox)
  for _ = 1, math.min(left, 100) do redis.call('LMOVE', inbox, ready, 'LEFT', 'RIGHT') end
  more = more or left > 100
end

return { recovered, died, more and 1 or 0 }
