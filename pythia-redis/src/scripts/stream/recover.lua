-- Hands the messages of silent consumers on: what has not been renewed for a lease goes to the retry stream, a message that
-- was in two crashes to the suspect stream, one at the limit of attempts to the dead letters.
-- KEYS  1 stream  2 retry  3 suspect  4 dead  5 clock
-- ARGV  1 group  2 lease, ms  3 limit of attempts (failures and crashes)  4 how many at most
-- Returns {recovered, dead, 1 if there is more, 1 if a suspect waits to be read}. Each move is atomic; sent again, it goes on
-- where it was.
local group, lease, limit, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()
-- A full Redis refuses a first write that may take memory, and lets through what comes after another.
redis.call('HDEL', KEYS[5], '')
local recovered, dead, more = 0, 0, 0

-- Without its group nothing is pending; whoever reads makes it.
for k = 1, 3 do
  local pending = redis.pcall('XPENDING', KEYS[k], group)
  if pending.err then
    return string.find(pending.err, 'NOGROUP', 1, true) and { 0, 0, 0, 0 } or pending
  end
end

local bytes = 0
if now >= grace(KEYS[5], now, lease) then
  for k = 1, 3 do
    local key, room = KEYS[k], budget - recovered - dead
    local rows = room > 0 and redis.call('XPENDING', key, group, 'IDLE', lease, '-', '+', room) or {}
    for _, row in ipairs(rows) do
      if bytes > 4194304 then more = 1 break end
      local id = row[1]
      local entry = redis.call('XRANGE', key, id, id)[1]
      -- Without an entry somebody has deleted or trimmed it: all that is left of it is its place in the pending list.
      if entry then
        local fields = entry[2]
        local of, from = meta(fields, id, k == 1)
        of.crashes = of.crashes + 1
        if of.crashes + of.failures >= limit then
          local reason = 'crashed held by ' .. of.crashes .. ' workers that died or fell silent'
          add(KEYS[4], { 'pythia-dead', reason, 'pythia-meta', meta_text(of) }, fields, from)
          dead = dead + 1
        else
          add_ready(KEYS[2], KEYS[3], of, fields, from)
          recovered = recovered + 1
        end
        for i = from, #fields do bytes = bytes + #fields[i] end
      end
      remove(key, group, id, k > 1)
    end
    if room <= 0 or #rows == room then more = 1 end
  end
end

local waiting = redis.call('XLEN', KEYS[3]) > redis.call('XPENDING', KEYS[3], group)[1]
return { recovered, dead, more, waiting and 1 or 0 }
