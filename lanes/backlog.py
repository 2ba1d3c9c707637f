"""Whose what stands on a lane is: counted in Redis, by the scripts that put commands on lanes and delete them there.

Each lane has a hash beside it. Of each store that has commands there it says how many, and how many bytes they have;
and how many of both there are in all. What was put there without a script is not counted. Counts of more than stands on
the lane, as after somebody trimmed it by hand, count for nothing and are forgotten with the next command, as all are
once the lane is empty; and a hash that cannot be used stops nobody.
"""

from __future__ import annotations

#: Stands for the store of what is no command.
NO_STORE = "?"
#: Ends the name of a field that counts bytes, after the store's.
BYTES_ENDING = "/bytes"

#: Fields of the hash where one store has all that is on the lane.
FIELDS_OF_ONE_STORE = 4

#: Defines a function that adds to, or with negative numbers takes from, what a store has on a lane.
COUNT = """
local function count(backlog, store, commands, bytes)
  local changes = {[store] = commands, [store .. '/bytes'] = bytes, ['/commands'] = commands, ['/bytes'] = bytes}
  for field, change in pairs(changes) do
    local standing = redis.pcall('HINCRBY', backlog, field, change)
    if type(standing) == 'number' and standing <= 0 then redis.pcall('HDEL', backlog, field) end
  end
end
"""

#: Defines functions for what is deleted from a lane where all that is counted there is one store's, which is nearly
#: always so: whether it is, and one that takes so many commands off, and of the bytes what so many have on average.
COUNT_ALONE = f"""{COUNT}
local function has_several_stores(backlog)
  local fields = redis.pcall('HLEN', backlog)
  return type(fields) == 'number' and fields > {FIELDS_OF_ONE_STORE}
end
local function count_alone(backlog, deleted)
  local fields = redis.pcall('HGETALL', backlog)
  local store, standing = nil, {{}}
  for i = 1, #fields, 2 do
    standing[fields[i]] = tonumber(fields[i + 1]) or 0
    if not string.find(fields[i], '/', 1, true) then store = fields[i] end
  end
  if store and standing[store] > 0 then
    local bytes = standing[store .. '/bytes'] or 0
    count(backlog, store, -deleted, -math.floor(bytes * math.min(deleted, standing[store]) / standing[store]))
  end
end
"""

#: Defines a function that returns what a lane has no room for, before a store's commands are put there: "commands" or
#: "bytes" of anybody, "store commands" or "store bytes" of this store; nil if there is room for `least` commands.
#: A store may have `share` times as much there as is free (0: as much as anybody). What is on the lane is judged, not
#: what comes, so that nothing is too large for ever.
#: And one that counts what was put there. Nothing is written before the first command: after a write Redis takes from
#: a script whatever comes, also where it is full.
PUT = f"""{COUNT}
local function standing(backlog, field) return tonumber(redis.pcall('HGET', backlog, field) or 0) or 0 end
local function are_wrong(backlog, length) return length == 0 or standing(backlog, '/commands') > length end
local function full(lane, backlog, store, least, most, most_bytes, share)
  local length = redis.call('XLEN', lane)
  if length + least > most then return 'commands' end
  if are_wrong(backlog, length) then return end
  local bytes = standing(backlog, '/bytes')
  if bytes >= most_bytes then return 'bytes' end
  if share == 0 then return end
  if math.min(standing(backlog, store), length) >= share * (most - length) then return 'store commands' end
  if standing(backlog, store .. '/bytes') >= share * (most_bytes - bytes) then return 'store bytes' end
end
local function note_put(lane, backlog, store, commands, bytes)
  if are_wrong(backlog, redis.call('XLEN', lane) - commands) then redis.pcall('DEL', backlog) end
  count(backlog, store, commands, bytes)
end
"""
