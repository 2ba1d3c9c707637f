"""Whether a Redis may throw away what is on the lanes when its memory is full. Pure; who asks it has a connection.

Many managed servers are set to do so, for caches. A lane has no time to live, so only the policies of the kind
allkeys-… reach it; those of the kind volatile-… take results that are in Postgres too.
"""

from __future__ import annotations

from collections.abc import Mapping

#: The section of INFO that tells.
SECTION = "memory"
#: How the names of the policies begin that throw away any key.
_REACHES_LANES = "allkeys"


def eviction_problem(memory: Mapping[str, object]) -> str | None:
    """Return what is wrong with a Redis whose INFO tells this of its memory; None: it evicts no lane, or tells not."""
    policy = str(memory.get("maxmemory_policy", ""))
    if str(memory.get("maxmemory", "0")) == "0" or not policy.startswith(_REACHES_LANES):
        return None
    return (
        f"evicts accepted commands without a word when its memory is full (maxmemory-policy {policy}); "
        "set maxmemory-policy to noeviction"
    )


def memory_of(info: bytes) -> dict[str, str]:
    """Return the fields of an INFO answer."""
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
