-- Put before the scripts that compare stream ids: `ms-seq`, both unsigned 64-bit, beyond what Lua's numbers hold exactly.

local function less(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if a_ms == b_ms then a_ms, b_ms = a_seq, b_seq end
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  return a_ms < b_ms
end

-- One less, in decimal; not for zero.
local function decrement(digits)
  local head, digit, zeros = string.match(digits, '^(%d*)([1-9])(0*)$')
  local text = head .. (digit - 1) .. string.rep('9', #zeros)
  return string.match(text, '^0*(%d+)$')
end

-- The greatest id below.
local function before(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if seq ~= '0' then return ms .. '-' .. decrement(seq) end
  if ms == '0' then return id end
  return decrement(ms) .. '-18446744073709551615'
end

-- The least id above; the id itself if there is none within its millisecond.
local function after(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if seq == '18446744073709551615' then return id end
  local head, digit, nines = string.match(seq, '^(%d-)([0-8]?)(9*)$')
  return ms .. '-' .. head .. (digit == '' and 1 or digit + 1) .. string.rep('0', #nines)
end

-- The value under a name in one of the flat replies of XINFO; nil where this version has no such name.
local function info(reply, name)
  for i = 1, #reply, 2 do
    if reply[i] == name then return reply[i + 1] end
  end
end

