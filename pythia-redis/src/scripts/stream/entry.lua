-- Put before the scripts that move entries between a stream, its retry stream, its suspect stream and its dead letters.
--
-- An entry in one of the last three is
--   [pythia-dead <kind> <error>]  pythia-meta <crashes> <failures> <enqueued, ms> <id>  and the fields that it had at first.
-- A body is such fields as one string, as the delayed messages keep it: repeated  length u32 BE | bytes.

local SUSPECT = 2   -- crashes from which on a message is handed out alone
local WIDE = 3900   -- values that one command takes at most: unpack() of 8,000 fails

-- The counters of an entry, and where its own fields begin. `fresh`: it lies in the queue's stream, where nothing is ours.
local function meta(fields, id, fresh)
  if not fresh and fields[1] == 'pythia-meta' then
    local crashes, failures, at, first_id = string.match(fields[2], '^(%d+) (%d+) (%d+) (.*)$')
    if crashes then
      return { crashes = tonumber(crashes), failures = tonumber(failures), at = at, id = first_id }, 3
    end
  end
  return { crashes = 0, failures = 0, at = string.match(id, '^%d+'), id = id }, 1
end

local function meta_text(of)
  return of.crashes .. ' ' .. of.failures .. ' ' .. of.at .. ' ' .. of.id
end

local function pack(fields, from)
  local parts = {}
  for i = from, #fields do
    parts[#parts + 1] = struct.pack('>I4', #fields[i])
    parts[#parts + 1] = fields[i]
  end
  return table.concat(parts)
end

-- The fields of a body; nil if it is none, which somebody else may have put among ours.
local function parse(body, from)
  local fields, at = {}, from
  while at + 3 <= #body do
    local length = struct.unpack('>I4', body, at)
    fields[#fields + 1] = string.sub(body, at + 4, at + 3 + length)
    at = at + 4 + length
  end
  if at == #body + 1 and #fields > 0 and #fields % 2 == 0 then return fields end
end

-- XADD of some leading fields and then `fields` from an index on. More than one command takes go as one packed field.
local function add(key, leading, fields, from)
  local all = { unpack(leading) }
  if #fields - from >= WIDE then
    all[#all + 1] = 'pythia-packed'
    all[#all + 1] = pack(fields, from)
  else
    for i = from, #fields do all[#all + 1] = fields[i] end
  end
  return redis.call('XADD', key, '*', unpack(all))
end

-- XADD of a message that goes on to be processed: a suspect apart from the others.
local function add_ready(retry, suspect, of, fields, from)
  return add(of.crashes >= SUSPECT and suspect or retry, { 'pythia-meta', meta_text(of) }, fields, from)
end

local function remove(key, group, id, private)
  redis.call('XACK', key, group, id)
  if private then redis.call('XDEL', key, id) end
end

