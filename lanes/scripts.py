"""How commands are put on a lane: one script in Redis, for clients and for what puts scheduled commands there.

It touches one partition only, so a Redis Cluster runs it on one node. What deletes from lanes is a worker's alone, and
stands with the workers.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from .backlog import PUT
from .keys import Keys

#: KEYS      the lane (stream), whose what stands on it is (hash)
#: ARGV[1]   most commands that the lane may hold
#: ARGV[2]   bytes after which it takes no more
#: ARGV[3]   how many times what is free there the store may have; 0 for whatever is free
#: ARGV[4]   the store
#: ARGV[5]   producer id: where to announce, with a number; "" to announce to nobody
#: ARGV[6]   "1" to keep the results under their poll keys, "" not to
#: ARGV[7]   "1" to add the first of the commands, as many as the lane may still hold; "" for all of them or none
#: ARGV[8…]  of each command, in order: its number, then its bytes
#: The fields of an entry are those of `keys`: c the command, r where to announce it, k whether to keep its result.
#: Returns the ids of the new entries, in order. If there is no room, adds none and returns what of.
ENQUEUE_SCRIPT = f"""{PUT}
local lane, backlog, most, store, producer, keep = KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[4], ARGV[5], ARGV[6]
local commands, bytes, ids = (#ARGV - 7) / 2, 0, {{}}
if ARGV[7] ~= '' then
  commands = math.min(commands, most - redis.call('XLEN', lane))
  if commands < 1 then return 'commands' end
end
local what = full(lane, backlog, store, commands, most, tonumber(ARGV[2]), tonumber(ARGV[3]))
if what then return what end
for i = 8, commands * 2 + 7, 2 do
  local command, reply = ARGV[i + 1], producer .. '/' .. ARGV[i]
  bytes = bytes + #command
  if producer == '' then
    ids[#ids + 1] = redis.call('XADD', lane, '*', 'c', command)
  elseif keep == '' then
    ids[#ids + 1] = redis.call('XADD', lane, '*', 'c', command, 'r', reply)
  else
    ids[#ids + 1] = redis.call('XADD', lane, '*', 'c', command, 'r', reply, 'k', keep)
  end
end
note_put(lane, backlog, store, commands, bytes)
return ids
"""
#: How many keys a call has.
ENQUEUE_KEYS = 2
#: By which Redis knows the script once it was loaded.
ENQUEUE_SHA1 = hashlib.sha1(ENQUEUE_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class LaneLimits(NamedTuple):
    """What a lane takes, in the order in which the script wants it."""

    #: Most commands that it may hold.
    commands: int
    #: Bytes after which it takes no more.
    bytes: int
    #: How many times what is free there a store may have; 0 for whatever is free.
    share_of_free: int = 0


def enqueue_header(
    keys: Keys,
    partition: int,
    limits: LaneLimits,
    store_id: str,
    *,
    producer_id: str = "",
    keep: bool = False,
    first_that_fit: bool = False,
) -> tuple[str | int, ...]:
    """Return the keys and arguments of a call that stand before the commands, each of which has its number before it.

    With no `producer_id` the numbers count for nothing.
    """
    of_lane = keys.lane(partition), keys.backlog(partition)
    return (*of_lane, *limits, store_id, producer_id, "1" if keep else "", "1" if first_that_fit else "")
