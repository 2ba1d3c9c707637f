"""What runs inside Redis. Every script touches one partition only, so a Redis Cluster runs it on one node."""

from __future__ import annotations

from ...lanes.backlog import COUNT, COUNT_ALONE

#: Makes this owner the only one that can delete from the lane, if what stands in the fence is lower.
#: KEYS 1 fence    ARGV 1 epoch, 2 what stands there and is passed over, empty for nothing
#: Returns what stands in the fence afterwards, as text; of another type than a string, "a " and its name.
RAISE_FENCE = """
local kind = redis.call('TYPE', KEYS[1])['ok']
local standing = ''
if kind == 'string' then
  standing = redis.call('GET', KEYS[1])
elseif kind ~= 'none' then
  standing = 'a ' .. kind
end
local number = tonumber(standing)
if standing == '' or standing == ARGV[2] or (number and number < tonumber(ARGV[1])) then
  redis.call('SET', KEYS[1], ARGV[1])
  return ARGV[1]
end
return standing
"""

#: How a script reports that a later owner has raised the fence. What is no number stands in nobody's way.
_IS_FENCED = """
local standing = tonumber(redis.pcall('GET', KEYS[2]) or '0')
if standing and standing > tonumber(ARGV[1]) then
  return -1
end
"""

#: Deletes what was decided from the head of the lane, if the head is what was decided: its first entry is the first
#: decided one, and the last decided one is there with its payload. Ids alone do not show it: a Redis that lost its tail
#: gives them out again. What came between two entries that are still there came with them.
#: KEYS 1 lane, 2 fence, 3 whose what stands on it is
#: ARGV 1 epoch, 2 first decided id, 3 last decided id, 4 payload of that, 5 the id after it,
#:      then of each store that had some of it: the store, how many commands, how many bytes; none if it is not known
#: Returns the number of entries deleted, -1 if the lane is another owner's, -2 if its head is something else, or -3
#: if several stores have something on the lane and it was not given whose this is.
DELETE_HEAD = (
    COUNT_ALONE
    + _IS_FENCED
    + """
local head = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not head then
  return 0
end
local last = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
if head[1] ~= ARGV[2] or not last then
  return -2
end
for i = 2, #last[2], 2 do
  if last[2][i] == ARGV[4] then
    if #ARGV == 5 and has_several_stores(KEYS[3]) then
      return -3
    end
    local deleted = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[5])
    if #ARGV == 5 then
      count_alone(KEYS[3], deleted)
    end
    for j = 6, #ARGV, 3 do
      count(KEYS[3], ARGV[j], -ARGV[j + 1], -ARGV[j + 2])
    end
    return deleted
  end
end
return -2
"""
)

#: Deletes entries by their ids, whatever stands between them. Some twenty times the cost of the above for each.
#: KEYS 1 lane, 2 fence, 3 whose what stands on it is    ARGV 1 epoch, then of each its id, its store, its bytes
#: Returns the number of entries deleted, or -1 if the lane is another owner's.
DELETE_ENTRIES = (
    COUNT
    + _IS_FENCED
    + """
local deleted = 0
for i = 2, #ARGV, 3 do
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
    count(KEYS[3], ARGV[i + 1], -1, -ARGV[i + 2])
    deleted = deleted + 1
  end
end
return deleted
"""
)

#: Keeps results under their poll keys. A stream of one entry, so that a waiter can block on it.
#: KEYS poll keys    ARGV 1 time to live in seconds, 2 name of the field, 3 name and 4 value of the version's field,
#:                   then one value a key
KEEP_RESULTS = """
for i, key in ipairs(KEYS) do
  redis.call('DEL', key)
  redis.call('XADD', key, '*', ARGV[2], ARGV[i + 4], ARGV[3], ARGV[4])
  redis.call('EXPIRE', key, ARGV[1])
end
"""
