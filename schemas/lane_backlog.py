"""Whose what stands on a lane is: counted in Redis, by the scripts that put commands on lanes and delete them there.

Each lane has a hash beside it. Of each store that has commands there it says how many, and how many bytes they have;
and of the lane, how many bytes in all. What was put there without a script is not counted. A count can only be wrong
until the lane is empty, since that forgets all of them; and a hash that cannot be used stops nobody, it only counts for
nothing.
"""

from __future__ import annotations

#: Stands for the store of what is no command.
NO_STORE = "?"

#: Defines a function that adds to, or with negative numbers takes from, what a store has on a lane.
COUNT = """
local function count(backlog, store, commands, bytes)
  for field, change in pairs({[store] = commands, [store .. '/bytes'] = bytes, ['/bytes'] = bytes}) do
    local standing = redis.pcall('HINCRBY', backlog, field, change)
    if type(standing) == 'number' and standing <= 0 then redis.pcall('HDEL', backlog, field) end
  end
end
"""

#: Defines a function that tells what a lane has no room for, before a store's commands are put there: "commands" or
#: "bytes" of anybody, "store commands" or "store bytes" of this store; nil if there is room for `least` commands.
#: A store may have `share` times as much there as is free (0: as much as anybody). What is on the lane is judged, not
#: what comes, so that nothing is too large for ever.
FIND_ROOM = """
local function full(lane, backlog, store, least, most, most_bytes, share)
  local length = redis.call('XLEN', lane)
  if length == 0 then redis.pcall('DEL', backlog) end
  if length + least > most then return 'commands' end
  local function standing(field) return tonumber(redis.pcall('HGET', backlog, field) or 0) or 0 end
  local bytes = standing('/bytes')
  if bytes >= most_bytes then return 'bytes' end
  if share > 0 and math.min(standing(store), length) >= share * (most - length) then return 'store commands' end
  if share > 0 and standing(store .. '/bytes') >= share * (most_bytes - bytes) then return 'store bytes' end
end
"""
