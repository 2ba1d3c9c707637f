"""What a running stack leaves in its data directory for other commands: a lock, and its settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from ..schemas.errors import ConfigurationError
from ..schemas.settings import Settings
from .processes import is_free, try_lock, wait_until
from .trusted_paths import open_trusted, trusted_directory

#: Where a stack keeps its data by default.
DATA_DIRECTORY = Path(".creditlane")
RECORD_NAME = "stack.json"
LOCK_NAME = "stack.lock"
#: What other processes may learn from a record; whatever else stands in one is not repeated.
KNOWN_SETTINGS = frozenset(
    {*(f"CREDITLANE_{name.upper()}" for name in Settings.model_fields), "CREDITLANE_API_URL", "CREDITLANE_API_KEY"}
)
#: A command that only checks whether a stack runs holds the lock for a moment, in seconds.
LOCK_SECONDS = 1.0


class StackRecord(BaseModel):
    """A running stack."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    pid: int
    workers: int
    #: The CREDITLANE_ variables with which other processes reach it.
    settings: dict[str, str]

    @field_validator("settings")
    @classmethod
    def _only_known(cls, settings: dict[str, str]) -> dict[str, str]:
        # Shells run the names, too.
        return {name: value for name, value in settings.items() if name in KNOWN_SETTINGS}


class AlreadyRunning(ConfigurationError):
    """A stack runs already on this data directory."""


@contextmanager
def claimed(data_dir: Path) -> Iterator[None]:
    """Hold the data directory for one stack.

    The claim is a lock of the operating system: it ends with the process that holds it, however that ends, and no
    recycled process id can be taken for it.

    Raises:
        AlreadyRunning: another stack holds it.
        UntrustedPath: it is another user's, or others may write into it.
    """
    make_data_directory(data_dir)
    taken: list[int] = []

    def take() -> bool:
        descriptor = try_lock(data_dir / LOCK_NAME)
        taken.extend([] if descriptor is None else [descriptor])
        return bool(taken)

    if not wait_until(take, seconds=LOCK_SECONDS):
        with trusted_directory(data_dir) as opened:
            record = _read(data_dir, opened)
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
    """Let other commands know the stack that runs in this process. The settings may hold passwords."""
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
    """Return the stack that runs on the data directory, or on the nearest one upwards; None if none runs.

    Raises:
        UntrustedPath: somebody else may have written what is there.
    """
    for directory in [data_dir] if data_dir else _upwards():
        # Also a link that leads nowhere, to be named.
        if os.path.lexists(directory / LOCK_NAME):
            return _running_in(directory)
    return None


def _upwards() -> Iterator[Path]:
    here = Path.cwd()
    return (directory / DATA_DIRECTORY for directory in (here, *here.parents))


def make_data_directory(data_dir: Path) -> None:
    """Make the data directory, or make sure that it is ours; what is in it decides what root runs, for one.

    Raises:
        UntrustedPath: it is another user's, or others may write into it.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        data_dir.mkdir(mode=0o700)
        if os.geteuid() == 0:
            # Only what root made itself is opened to the user who runs its servers, to pass through.
            data_dir.chmod(0o711)
    with trusted_directory(data_dir):
        pass


def _running_in(directory: Path) -> StackRecord | None:
    with trusted_directory(directory) as opened:
        lock = open_trusted(opened, directory / LOCK_NAME, os.O_RDWR)
        try:
            return None if is_free(lock) else _read(directory, opened)
        finally:
            os.close(lock)


def _read(directory: Path, opened: int) -> StackRecord | None:
    with suppress(FileNotFoundError, ValidationError):
        file = open_trusted(opened, directory / RECORD_NAME, os.O_RDONLY)
        return StackRecord.model_validate_json(_contents(file))
    return None


def _contents(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
