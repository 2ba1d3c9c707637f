"""The users of Redis: what each part of Creditlane may do there, and no more. They are made from here alone.

    producer    clients and the HTTP API: put commands on the lanes, read their results
    worker      workers: read and clear the lanes, announce results; cannot put a command on a lane
    jobs        RQ processes: RQ's own keys, and commands on the lanes at their due time
    operator    the command line: what producers may, and what is on RQ

Every key begins with the installation's prefix, but for RQ's, which names its queues and jobs after it. The rules are
those of Redis 7 and Valkey: each pair of parentheses is a list of commands beside the keys that they are for, and what
a script does is checked like any other command. Redis 6.2 has no parentheses; there one user does everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, get_args
from urllib.parse import quote, urlsplit, urlunsplit

from ...schemas.installation import MAX_PARTITIONS
from ..keys import Keys
from ..rq_queues import QUEUES

RedisUser = Literal["producer", "worker", "jobs", "operator"]
REDIS_USERS: tuple[RedisUser, ...] = get_args(RedisUser)


class Grant(NamedTuple):
    """Commands, and the keys that they are for: exact names, or patterns as Redis has them."""

    commands: str
    keys: tuple[str, ...]
    #: The keys may only be read.
    reads: bool = False

    def __str__(self) -> str:
        """Return it as Redis has it."""
        sign = "%R~" if self.reads else "~"
        words = [f"+{command}" for command in self.commands.split()] + [f"{sign}{key}" for key in self.keys]
        return f"({' '.join(words)})"


#: What needs no key: who is connected, whether Redis answers, its clock, and how it makes room.
CONNECTION = (
    "auth hello ping quit reset select client|setname client|setinfo client|getname client|info client|id time info"
)
#: Scripts are sent once and then named by their digest.
SCRIPTS = "script|load script|exists"
#: RQ sends several commands as one.
TRANSACTIONS = "multi exec discard unwatch"

#: The number of a partition: digits only, since an idempotency key, which ends the name of a poll key, may be anything.
_PARTITIONS = tuple("[0-9]" * digits for digits in range(1, len(str(MAX_PARTITIONS - 1)) + 1))
#: Where RQ notes what becomes of a queue's jobs.
_RQ_REGISTRIES = ("wip", "finished", "failed", "deferred", "scheduled", "canceled", "ready")


def user_name(user: RedisUser, prefix: str) -> str:
    """Return what the user is called in Redis."""
    return f"{prefix}_{user}"


def rules(user: RedisUser, prefix: str) -> str:
    """Return what the user may do, as the words of ACL SETUSER, for one who may do nothing."""
    keyless = f"{CONNECTION} {SCRIPTS}" if user in {"producer", "worker"} else f"{CONNECTION} {SCRIPTS} {TRANSACTIONS}"
    return " ".join(
        [
            *(f"+{command}" for command in keyless.split()),
            *map(str, _GRANTS[user](prefix)),
        ]
    )


def acl_lines(prefix: str, secrets: Mapping[RedisUser, str]) -> list[str]:
    """Return a line of an ACL file for each user that has a secret: what `hashed` makes of a password, or a variable.

    After `ACL SETUSER` they say the same, but for the first word.
    """
    return [
        f"user {user_name(user, prefix)} reset on {secret} {rules(user, prefix)}" for user, secret in secrets.items()
    ]


def hashed(password: str) -> str:
    """Return a password as an ACL file may show it."""
    return f"#{hashlib.sha256(password.encode()).hexdigest()}"


def as_user(url: str, name: str, password: str) -> str:
    """Return the URL of the same Redis for a user."""
    parts = urlsplit(url)
    login = f"{quote(name, safe='')}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}"))


class _Names:
    """The names and patterns of an installation's keys."""

    def __init__(self, prefix: str) -> None:
        keys = Keys(prefix)
        self.lanes, self.backlogs, self.fences, self.results = (
            tuple(f"{prefix}:{{p{number}}}:{name}" for number in _PARTITIONS)
            for name in ("commands", "backlog", "fence", "result:*")
        )
        self.replies = f"{prefix}:replies:*"
        self.rates = f"{prefix}:rate:*"
        self.asking = keys.asking
        self.installation = keys.installation
        self.wake_deliveries = keys.wake_deliveries
        self.refused_jobs = keys.refused_jobs
        self.write_check = keys.write_check
        self.turns = (keys.held_turn, keys.others_at_work)
        self.queues = [f"{prefix}-{queue}" for queue in QUEUES]


def _of_status(names: _Names) -> Iterator[Grant]:
    """Yield what `creditlane status` needs, by which containers are checked, too."""
    # A script that only reads needs its keys like one that writes.
    yield Grant("eval evalsha xrange xlen", names.lanes)
    yield Grant("set", (names.write_check,))


def _put_on_lanes(names: _Names) -> Iterator[Grant]:
    yield Grant("eval evalsha xadd xlen", names.lanes + names.backlogs)
    yield Grant("hget hincrby hdel del", names.backlogs)


def _of_producer(prefix: str) -> Iterator[Grant]:
    names = _Names(prefix)
    yield from _of_status(names)
    yield from _put_on_lanes(names)
    yield Grant("xread", names.lanes)
    yield Grant("hgetall", names.backlogs, reads=True)
    yield Grant("xread", names.results, reads=True)
    yield Grant("xadd xread del", (names.replies,))
    yield Grant("get set", (names.installation,))
    yield Grant("eval evalsha get set", (names.rates, names.asking))
    yield Grant("hget", (names.refused_jobs,), reads=True)
    yield Grant("rpush ltrim", (names.wake_deliveries,))


def _of_worker(prefix: str) -> Iterator[Grant]:
    names = _Names(prefix)
    yield from _of_status(names)
    yield Grant("eval evalsha xread xrange xlen xtrim xdel", names.lanes + names.fences + names.backlogs)
    yield Grant("hincrby hdel hlen hgetall", names.backlogs)
    yield Grant("get set type", names.fences)
    yield Grant("xadd xtrim expire", (names.replies,))
    yield Grant("eval evalsha del xadd expire", names.results)
    yield Grant("get set del", (names.installation,))
    yield Grant("del", (names.write_check,))
    yield Grant("set del exists", names.turns)
    yield Grant("rpush ltrim", (names.wake_deliveries,))


def _of_jobs(prefix: str) -> Iterator[Grant]:
    names = _Names(prefix)
    yield from _put_on_lanes(names)
    yield Grant("blpop rpush ltrim", (names.wake_deliveries,))
    yield Grant("hincrby hget", (names.refused_jobs,))
    yield from _of_rq(names, prefix)


def _of_operator(prefix: str) -> Iterator[Grant]:
    yield from _of_producer(prefix)
    yield from _of_rq(_Names(prefix), prefix)


def _of_rq(names: _Names, prefix: str) -> Iterator[Grant]:
    """Yield what RQ does for our queues. Its lists of queues and processes are those of all who share the Redis."""
    queues = names.queues
    jobs = f"{prefix.replace('.', '_')}-*"
    yield Grant(
        "blmove del exists llen lpos lpush lrange lrem rpush",
        tuple(f"rq:queue:{queue}{rest}" for queue in queues for rest in ("", ":intermediate")),
    )
    # When a job was first found between its queue and who takes it: a minute later its process is taken for dead.
    yield Grant("get set", tuple(f"rq:queue:{queue}:intermediate:first_seen:*" for queue in queues))
    yield Grant(
        "exists watch zadd zcard zrange zrangebyscore zrem zremrangebyscore zscore",
        tuple(f"rq:{registry}:{queue}" for registry in _RQ_REGISTRIES for queue in queues),
    )
    yield Grant(
        "del exists expire hdel hget hgetall hset persist smembers watch",
        # A job is deleted with its results in one command, whose keys are looked for in one pair of parentheses.
        (f"rq:job:{jobs}", f"rq:job::{jobs}", f"rq:results:{jobs}"),
    )
    yield Grant("del expire hgetall hset", (f"rq:execution:{jobs}",))
    yield Grant("del expire zadd zcard zrange zrem zremrangebyscore", (f"rq:executions:{jobs}",))
    yield Grant("del expire xadd xlen xrevrange xtrim", (f"rq:results:{jobs}",))
    yield Grant(
        "del exists expire hexists hget hgetall hincrby hincrbyfloat hset sadd scard smembers srem", ("rq:worker:*",)
    )
    yield Grant(
        "sadd scard smembers srem",
        ("rq:queues", "rq:workers", *(f"rq:workers:{queue}" for queue in queues)),
    )
    yield Grant("del set", ("rq:clean_groups", *(f"rq:clean_registries:{queue}" for queue in queues)))
    yield Grant("exists get smembers", ("rq:suspended", "rq:groups", "rq:rl-keys"), reads=True)


_GRANTS = {"producer": _of_producer, "worker": _of_worker, "jobs": _of_jobs, "operator": _of_operator}
