-- Put before the scripts that look into messages. A frame is
--   F5 'P' 'Y' '1' | crashes u8 | failures u8 | header length u32 | headers | payload
--   headers: repeated  key length u16 | key | value length u32 | value        (integers big-endian)
-- and any other bytes are a message that a plain client wrote.

local MAGIC = '\245PY1'
local TOMB = '\245PY\0'   -- stands where a settled message was
local SUSPECT = 2         -- crashes from which on a message is handed out alone

-- Where the payload begins, or nil if this is no well-formed frame: its bytes are then nobody's to change.
local function payload_at(message)
  if string.sub(message, 1, 4) ~= MAGIC or #message < 10 then return nil end
  local first = 11 + struct.unpack('>I4', message, 7)
  if first > #message + 1 then return nil end
  local at = 11
  while at < first do
    if at + 2 > first then return nil end
    at = at + 2 + struct.unpack('>I2', message, at)
    if at + 4 > first then return nil end
    at = at + 4 + struct.unpack('>I4', message, at)
  end
  return at == first and first or nil
end

-- The value under a key in the headers of a well-formed frame, or nil.
local function header_of(message, key)
  local first, at = payload_at(message) or 0, 11
  while at < first do
    local length = struct.unpack('>I2', message, at)
    local name = string.sub(message, at + 2, at + 1 + length)
    at = at + 2 + length
    length = struct.unpack('>I4', message, at)
    if name == key then return string.sub(message, at + 4, at + 3 + length) end
    at = at + 4 + length
  end
  return nil
end

local function header(key, value)
  return struct.pack('>I2', #key) .. key .. struct.pack('>I4', #value) .. value
end

local function frame(crashes, failures, headers, payload)
  return MAGIC .. string.char(crashes, failures) .. struct.pack('>I4', #headers) .. headers .. payload
end

-- Whether a message was in so many crashes that it must not take others along into the next.
local function is_suspect(message)
  local crashes = string.byte(message, 5)
  return crashes and crashes >= SUSPECT and payload_at(message) ~= nil
end

