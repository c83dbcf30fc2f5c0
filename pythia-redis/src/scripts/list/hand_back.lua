-- Hands back what is left of a claim, as it was: to the head, in its old order. Answers how many messages that were.
local function hand_back(ready, held, batch, claim)
  -- A key of another type is found before anything has changed.
  redis.call('LLEN', ready)
  local messages, back = redis.call('LRANGE', batch, 0, -1), {}
  for i = #messages, 1, -1 do
    if messages[i] ~= TOMB then back[#back + 1] = messages[i] end
  end
  -- A full Redis refuses a first write that may take memory, and lets through what comes after another.
  redis.call('HDEL', held, claim)
  if #back > 0 then redis.call('RPUSH', ready, unpack(back)) end
  redis.call('DEL', batch)
  return #back
end
