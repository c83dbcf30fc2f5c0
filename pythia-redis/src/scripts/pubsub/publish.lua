-- Publishes a batch, each message once where it has a dedupe key.
-- KEYS  1: the channel · 2..: dedupe keys
-- ARGV  1: the command, PUBLISH or SPUBLISH · 2: how long a dedupe key is remembered, ms
--       then for each message  the index of its dedupe key in KEYS or 0 · the frame
-- Returns {receivers of each message; -1: deduplicated}
-- Sent twice, it publishes twice what has no dedupe key.
local answers = {}
for i = 3, #ARGV, 2 do
  local key = tonumber(ARGV[i])
  if key > 0 and not redis.call('SET', KEYS[key], '', 'NX', 'PX', ARGV[2]) then
    answers[#answers + 1] = -1
  else
    answers[#answers + 1] = redis.call(ARGV[1], KEYS[1], ARGV[i + 1])
  end
end
return answers
