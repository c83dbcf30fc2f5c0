-- Makes dead letters ready again, the oldest first, with their counters at zero.
-- KEYS  1 dead  2 ready  3 answer: where this very call keeps its answer, so that it can be sent again
-- ARGV  1 how many letters to look at, at most  2 about how many bytes of them  3 from which rank, the oldest being 0
--       4.. only messages with these ids; none: all
-- Returns {requeued, the rank to go on from, 1 if there is more}.
local dead, ready, answer = unpack(KEYS)
local count, bytes_limit, rank = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local answered = redis.call('GET', answer)
if answered then
  local requeued, next_rank, more = string.match(answered, '^(%d+) (%d+) (%d)$')
  return { tonumber(requeued), tonumber(next_rank), tonumber(more) }
end

redis.call('LLEN', ready)
local wanted = {}
for i = 4, #ARGV do wanted[ARGV[i]] = true end

local requeued, looked_at, bytes = 0, 0, 0
while looked_at < count and bytes <= bytes_limit do
  -- One more than were looked at, and no more than are likely to fit: what is read beyond the limit is read in vain, while
  -- the server does nothing else.
  local fit = math.floor((bytes_limit - bytes) / (bytes / math.max(looked_at, 1) + 1)) + 1
  local from = rank + looked_at - requeued
  local letters = redis.call('ZRANGE', dead, from, from + math.min(looked_at + 1, fit, count - looked_at) - 1)
  if #letters == 0 then break end
  for _, letter in ipairs(letters) do
    looked_at, bytes = looked_at + 1, bytes + #letter
    local at = payload_at(letter)
    local message = at and string.sub(letter, at) or letter
    if #ARGV < 4 or wanted[header_of(message, 'pythia-id')] then
      if payload_at(message) then message = string.sub(message, 1, 4) .. '\0\0' .. string.sub(message, 7) end
      redis.call('ZREM', dead, letter)
      redis.call('LPUSH', ready, message)
      requeued = requeued + 1
    end
  end
end

local next_rank = rank + looked_at - requeued
local more = redis.call('ZCARD', dead) > next_rank and 1 or 0
if requeued > 0 then redis.call('SET', answer, requeued .. ' ' .. next_rank .. ' ' .. more, 'PX', 60000) end
return { requeued, next_rank, more }
