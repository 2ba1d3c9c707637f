"""What a Postgres and a Redis must be for Creditlane, judged from what they report of themselves. Pure.

Judged here alone: every process asks at its start, `creditlane status` and `/readyz` whenever they are asked. What
cannot work is refused; a warning is of what works until the servers are full or are started anew. Either is one line
that says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import ConfigurationError

#: What every text of a ledger is in.
ENCODING = "UTF8"
#: The first versions that have what we use: of Postgres as it numbers them, of Redis without the last part.
FIRST_POSTGRES = 130_000
FIRST_REDIS = (6, 2)
#: The least memory that a Redis may be limited to without a warning, in bytes: some 100,000 commands that wait.
MIN_MEMORY_BYTES = 64 * 1024 * 1024

#: How the names of the policies begin that throw away any key. A lane has no time to live, so those of the kind
#: volatile-… only reach results, which are in Postgres too.
_REACHES_LANES = "allkeys"
_VERSION = re.compile(r"(\d+)\.(\d+)")
_MEGABYTE = 1024 * 1024


def check_postgres(encoding: str | None, version: int) -> None:
    """Judge a Postgres by the encoding of the database and its version as it numbers them.

    Raises:
        ConfigurationError: no ledger can be kept in it.
    """
    if version < FIRST_POSTGRES:
        major = version // 10_000
        raise ConfigurationError(f"Postgres is version {major}, and a ledger needs {FIRST_POSTGRES // 10_000} or later")
    if encoding != ENCODING:
        raise ConfigurationError(
            f"the database's encoding is {encoding}, and a ledger needs {ENCODING}: create another one with "
            f"`create database … encoding '{ENCODING}' template template0`"
        )


def check_redis(info: Mapping[str, object]) -> list[str]:
    """Judge a Redis by its answer to INFO, and return what to warn of. What it does not report is taken for right.

    Raises:
        ConfigurationError: it cannot have the lanes.
    """
    reported = {name: str(value) for name, value in info.items()}
    refusal = _version_problem(reported) or _cluster_problem(reported)
    if refusal is not None:
        raise ConfigurationError(f"Redis {refusal}")
    problems = (_eviction_problem(reported), _memory_problem(reported), _persistence_problem(reported))
    return [problem for problem in problems if problem is not None]


def fields_of(info: bytes) -> dict[str, str]:
    """Return the fields of an INFO answer as it is sent."""
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _version_problem(reported: Mapping[str, str]) -> str | None:
    version = _VERSION.match(reported.get("redis_version", ""))
    if version is None or (int(version[1]), int(version[2])) >= FIRST_REDIS:
        return None
    return f"is version {reported['redis_version']}, and Creditlane needs {'.'.join(map(str, FIRST_REDIS))} or later"


def _cluster_problem(reported: Mapping[str, str]) -> str | None:
    if reported.get("redis_mode") != "cluster" and reported.get("cluster_enabled", "0") == "0":
        return None
    return (
        "runs in cluster mode, in which one command cannot reach all lanes; take one without cluster mode, "
        "whose replicas are welcome"
    )


def _eviction_problem(reported: Mapping[str, str]) -> str | None:
    policy = reported.get("maxmemory_policy", "")
    if reported.get("maxmemory", "0") == "0" or not policy.startswith(_REACHES_LANES):
        return None
    return (
        f"evicts accepted commands without a word when its memory is full (maxmemory-policy {policy}); "
        "set maxmemory-policy to noeviction"
    )


def _memory_problem(reported: Mapping[str, str]) -> str | None:
    limit = int(reported.get("maxmemory", "0"))
    if limit == 0 or limit >= MIN_MEMORY_BYTES:
        return None
    return (
        f"may use {limit / _MEGABYTE:.0f} MB of memory, which few waiting commands fill, and then takes no more; "
        f"set maxmemory to {MIN_MEMORY_BYTES // _MEGABYTE}mb or more"
    )


def _persistence_problem(reported: Mapping[str, str]) -> str | None:
    if reported.get("aof_enabled", "1") != "0":
        return None
    return "forgets accepted commands when it is started anew (appendonly no); set appendonly to yes"
