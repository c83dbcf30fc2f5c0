-- Renews the lease of a consumer and of what it holds. An id that is not its own any more is not taken back: XCLAIM alone
-- would take it from its new owner.
-- KEYS  1 stream  2 retry  3 suspect  4 consumers  5 clock
-- ARGV  1 group  2 consumer  3 lease, ms  4, 5, 6 how many ids of KEYS 1, 2, 3 (1,000 in all)  7.. these ids, each key's
--       ascending
-- Returns {1 if a suspect waits to be read, otherwise 0, {lost ids of KEYS 1}, {of KEYS 2}, {of KEYS 3}}.
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = now_ms()
-- A full Redis refuses a script's first write if that may take memory. This one can't, and what comes after a first write is
-- let through: who can't renew is taken for dead, and who holds messages has to drain it.
redis.call('ZREM', KEYS[4], consumer)
redis.call('ZADD', KEYS[4], now + lease, consumer)
grace(KEYS[5], now, lease)

-- The ids from first to last that are pending for this consumer, as a set.
local function held(key, first, last)
  local own, from = {}, first
  while true do
    local page = redis.pcall('XPENDING', key, group, from, last, 1000, consumer)
    if page.err then
      if string.find(page.err, 'NOGROUP', 1, true) then return {} end
      return nil, page
    end
    for _, row in ipairs(page) do own[row[1]] = true end
    if #page < 1000 then return own end
    from = '(' .. page[1000][1]
  end
end

local answer, first = { 0 }, 7
for k = 1, 3 do
  local key, count = KEYS[k], tonumber(ARGV[3 + k])
  local lost, claim = {}, {}
  if count > 0 then
    local own, failed = held(key, ARGV[first], ARGV[first + count - 1])
    if failed then return failed end
    for i = first, first + count - 1 do
      local list = own[ARGV[i]] and claim or lost
      list[#list + 1] = ARGV[i]
    end
    if #claim > 0 then
      claim[#claim + 1] = 'JUSTID'
      redis.call('XCLAIM', key, group, consumer, 0, unpack(claim))
    end
  end
  answer[1 + k] = lost
  first = first + count
end

local suspects = redis.pcall('XPENDING', KEYS[3], group)
if not suspects.err and redis.call('XLEN', KEYS[3]) > suspects[1] then answer[1] = 1 end
return answer
