-- Makes dead letters ready again, with their counters at zero.
-- KEYS  1 dead  2 retry
-- ARGV  the letters' ids in the stream of dead letters
-- Returns how many were there. Sent again, it finds none.
local requeued = 0
for _, id in ipairs(ARGV) do
  local letter = redis.call('XRANGE', KEYS[1], id, id)[1]
  if letter then
    local fields, from = letter[2], 1
    if fields[1] == 'pythia-dead' then from = 3 end
    local rest = { unpack(fields, from, from + 1) }
    local of, body = meta(rest, id, false)
    of.crashes, of.failures = 0, 0
    add(KEYS[2], { 'pythia-meta', meta_text(of) }, fields, from + body - 1)
    redis.call('XDEL', KEYS[1], id)
    requeued = requeued + 1
  end
end
return requeued
