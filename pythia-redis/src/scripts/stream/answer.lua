-- Put before the scripts that settle, each of whose calls has a number.

local KEPT = 600000   -- for how long the answer to a consumer's last call is kept, ms; nobody repeats one after that

-- How many of `count` were stale when this call was carried out first; `stale`: how many are so now. To be asked last.
local function first_answer(key, call, stale, count)
  if stale > 0 then
    local known, answer = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
    if known == call then return tonumber(answer) end
  end
  -- If all were, all are so the next time.
  if stale < count then redis.call('SET', key, call .. ' ' .. stale, 'PX', KEPT) end
  return stale
end

