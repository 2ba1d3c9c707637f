"""What runs inside Redis. Every script touches one partition only, so a Redis Cluster runs it on one node."""

from __future__ import annotations

#: Makes this owner the only one that can delete from the lane.
#: KEYS 1 fence    ARGV 1 epoch
#: Returns the epoch that stands in the fence afterwards.
RAISE_FENCE = """
local standing = tonumber(redis.call('GET', KEYS[1]) or '0')
local epoch = tonumber(ARGV[1])
if epoch > standing then
  redis.call('SET', KEYS[1], ARGV[1])
  return epoch
end
return standing
"""

#: Deletes decided entries from the head of the lane, unless a later owner has raised the fence.
#: KEYS 1 lane, 2 fence    ARGV 1 epoch, 2 id after the last decided entry
#: Returns the number of entries deleted, or -1 if the lane is another owner's.
DELETE_DECIDED = """
local standing = tonumber(redis.call('GET', KEYS[2]) or '0')
if standing > tonumber(ARGV[1]) then
  return -1
end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
"""

#: Deletes decided entries where others stand between them, unless a later owner has raised the fence.
#: KEYS 1 lane, 2 fence    ARGV 1 epoch, then the ids
#: Returns the number of entries deleted, or -1 if the lane is another owner's.
DELETE_ENTRIES = """
local standing = tonumber(redis.call('GET', KEYS[2]) or '0')
if standing > tonumber(ARGV[1]) then
  return -1
end
return redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
"""

#: Keeps results under their poll keys. A stream of one entry, so that a waiter can block on it.
#: KEYS poll keys    ARGV 1 time to live in seconds, 2 name of the field, then one value a key
KEEP_RESULTS = """
for i, key in ipairs(KEYS) do
  redis.call('DEL', key)
  redis.call('XADD', key, '*', ARGV[2], ARGV[i + 2])
  redis.call('EXPIRE', key, ARGV[1])
end
"""
