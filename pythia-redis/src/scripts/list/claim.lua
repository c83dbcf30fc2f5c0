-- Moves the oldest ready messages into a list of their own: claim n of a consumer. The same n again gets the same answer,
-- because its first answer may have been lost; a smaller limit then hands back what is beyond it. An n that is done with
-- gets nothing: that is a call which the network had held up.
-- KEYS  1 ready  2 inbox  3 consumers  4 held by the consumer  5 batch
-- ARGV  1 consumer  2 n, from 1, one more with each new claim  3 how many messages at most  4 about how many bytes
--       5 lease, ms
-- Returns {how many more are ready, {messages, the oldest first}}.
local ready, inbox, consumers, held, batch = unpack(KEYS)
local consumer, n, limit, bytes_limit = ARGV[1], tonumber(ARGV[2]), math.min(ARGV[3], 1000), tonumber(ARGV[4])

local in_inbox = redis.call('LLEN', inbox)
local waiting = in_inbox + redis.call('LLEN', ready)
local claimed = redis.call('LRANGE', batch, 0, -1)
local done = #claimed == 0 and n <= tonumber(redis.call('HGET', held, 'claim') or 0)

-- A full Redis must be drained: it refuses a script's first write if that may take memory. This one can't, and what comes
-- after a first write is let through.
redis.call('ZREM', consumers, consumer)
redis.call('ZADD', consumers, now_ms() + ARGV[5], consumer)

if done then return { waiting, {} } end

if #claimed > 0 then
  local back = {}
  while #claimed > limit do back[#back + 1] = table.remove(claimed) end
  if #back > 0 then
    redis.call('LTRIM', batch, 0, limit - 1)
    redis.call('RPUSH', ready, unpack(back))
    redis.call('HSET', held, n, #claimed)
  end
  return { waiting + #back, claimed }
end

if waiting == 0 then return { 0, {} } end
-- A short queue is shared among the consumers, a long one goes in full batches.
limit = math.min(limit, math.ceil(waiting / redis.call('ZCARD', consumers)))

-- The first few tell how many more will fit into the bytes.
local byte, count, bytes, chunk, cut = string.byte, 0, 0, 8, false
local function take(from)
  while not cut and count < limit and bytes < bytes_limit do
    local popped = redis.call('RPOP', from, math.min(chunk, limit - count))
    if not popped then return end
    local keep = #popped
    for i = 1, #popped do
      local message = popped[i]
      if byte(message) == 245 then
        if message == TOMB then
          message = frame(0, 0, '', message)
        elseif is_suspect(message) then
          -- It goes alone: what is behind it waits, and it waits for what is before it.
          cut = true
          keep = count == 0 and i or i - 1
        end
      end
      if i <= keep then
        count = count + 1
        claimed[count] = message
        bytes = bytes + #message
        if bytes >= bytes_limit then keep = i end
      end
      if i >= keep then break end
    end
    if keep < #popped then
      local back = {}
      for i = #popped, keep + 1, -1 do back[#back + 1] = popped[i] end
      redis.call('RPUSH', from, unpack(back))
    end
    if count > 0 then chunk = math.floor(math.max(bytes_limit - bytes, 0) / (bytes / count + 1)) + 1 end
  end
end
if in_inbox > 0 then take(inbox) end
take(ready)

redis.call('RPUSH', batch, unpack(claimed))
redis.call('HSET', held, n, count, 'claim', n)
return { waiting - count, claimed }
