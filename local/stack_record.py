"""What a running stack leaves in its data directory for other commands: a lock, and its settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..schemas.errors import ConfigurationError
from .processes import try_lock, wait_until

#: Where a stack keeps its data unless told otherwise.
DATA_DIRECTORY = Path(".creditlane")
RECORD_NAME = "stack.json"
LOCK_NAME = "stack.lock"
#: A command that only looks whether a stack runs holds the lock for a moment, in seconds.
LOOK_SECONDS = 1.0


class StackRecord(BaseModel):
    """A running stack."""

    model_config = ConfigDict(frozen=True)

    pid: int
    workers: int
    #: The CREDITLANE_ variables with which other processes reach it.
    settings: dict[str, str]


class AlreadyRunning(ConfigurationError):
    """A stack runs already on this data directory."""


@contextmanager
def claimed(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for one stack.

    The claim is a lock of the operating system: it ends with the process that holds it, however that ends, and no
    recycled process id can be taken for it.

    Raises:
        AlreadyRunning: another stack holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    taken: list[int] = []

    def take() -> bool:
        descriptor = try_lock(data_dir / LOCK_NAME)
        taken.extend([] if descriptor is None else [descriptor])
        return bool(taken)

    if not wait_until(take, seconds=LOOK_SECONDS):
        record = _read(data_dir)
        by = f" by process {record.pid}" if record else ""
        raise AlreadyRunning(
            f'the stack in {data_dir} is already running{by}; use it: eval "$(creditlane env --export)"'
        )
    try:
        yield
    finally:
        os.close(taken[0])


@contextmanager
def recorded(data_dir: Path, workers: int, settings: Mapping[str, str]) -> Iterator[None]:
    """Tell other commands of the stack that runs in this process. The settings may hold passwords."""
    record = StackRecord(pid=os.getpid(), workers=workers, settings=dict(settings))
    path = data_dir / RECORD_NAME
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(record.model_dump_json(indent=2))
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find_running(data_dir: Path | None) -> StackRecord | None:
    """Return the stack that runs on the data directory, or on the nearest one upwards; None if none runs."""
    for directory in [data_dir] if data_dir else _upwards():
        if (directory / LOCK_NAME).exists():
            return _read(directory) if _is_claimed(directory) else None
    return None


def _upwards() -> Iterator[Path]:
    here = Path.cwd()
    return (directory / DATA_DIRECTORY for directory in (here, *here.parents))


def _is_claimed(directory: Path) -> bool:
    descriptor = try_lock(directory / LOCK_NAME)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def _read(directory: Path) -> StackRecord | None:
    with suppress(FileNotFoundError, ValidationError):
        return StackRecord.model_validate_json((directory / RECORD_NAME).read_bytes())
    return None
