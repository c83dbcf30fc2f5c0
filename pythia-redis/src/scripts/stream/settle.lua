-- Moves messages that are still ours to the delayed messages, the dead letters, or back; each move is atomic.
-- KEYS  1 stream  2 retry  3 suspect  4 delayed of the group  5 dead  6 answer
-- ARGV  1 group  2 consumer  3 number of the call, then five for each message: the operation (`retry`, `dead`, `release`), which of KEYS 1 to 3 it
--       was read from, its id there, an argument (retry: how long to wait, ms; dead: `<kind> <error>`), and a member of the
--       delayed set: 16 bytes that name the message, then a body that begins with pythia-meta
-- Returns how many were stale. Sent again under its number, it answers the same.
local group, consumer = ARGV[1], ARGV[2]
local now = now_ms()
local stale = 0

-- A key of another type is found before anything has changed.
for _, key in ipairs({ KEYS[2], KEYS[3], KEYS[5] }) do redis.call('XLEN', key) end

-- A full Redis must be drained: it refuses a script's first write if that may take memory. This one can't, and what comes
-- after a first write is let through.
redis.call('ZREM', KEYS[4], '')

for i = 4, #ARGV, 5 do
  local operation, which, id, argument, member = unpack(ARGV, i, i + 4)
  local key = KEYS[tonumber(which)]
  local pending = redis.pcall('XPENDING', key, group, id, id, 1, consumer)
  if pending.err and not string.find(pending.err, 'NOGROUP', 1, true) then return pending end
  if pending.err or not pending[1] then
    stale = stale + 1
  else
    -- Stored before it is removed: if the store is refused, the message stays where it is.
    local wait = operation == 'retry' and tonumber(argument) or 0
    if wait > 0 then
      redis.call('ZADD', KEYS[4], now + wait, member)
    else
      local fields = parse(member, 17)
      if operation == 'dead' then
        add(KEYS[5], { 'pythia-dead', argument, fields[1], fields[2] }, fields, 3)
      else
        local of, from = meta(fields, id, false)
        add_ready(KEYS[2], KEYS[3], of, fields, from)
      end
    end
    remove(key, group, id, which ~= '1')
  end
end

return first_answer(KEYS[6], ARGV[3], stale, (#ARGV - 3) / 5)
