"""The API beside the workers of the local stack, and the key that developers use with it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..cli.ledger_connection import ledger_connection
from ..cli.process_pool import API_NUMBER, LogSink, WorkerPool
from ..producer.api.listening_socket import address_of, listening_socket
from ..producer.operations.api_keys import FIND_KEYS, KeyRow, create_key, key_id_of, matching
from ..schemas.errors import ConfigurationError
from ..schemas.settings import Settings

#: The development key stands here, for its owner alone.
KEY_FILE = "api-key"
KEY_NAME = "development"
#: The port of the latest start stands here: whoever has the address finds it there after the next one.
PORT_FILE = "api-port"
#: The first start's, if it is free.
PREFERRED_PORT = 8_000
HOST = "127.0.0.1"


class Api(NamedTuple):
    """The API of a running stack."""

    url: str
    key: str
    #: The key was made just now and was never shown.
    is_key_new: bool

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which other processes reach it."""
        return {"CREDITLANE_API_URL": self.url, "CREDITLANE_API_KEY": self.key}


@contextmanager
def served_api(
    data_dir: Path,
    settings: Settings,
    environment: Mapping[str, str],
    log: LogSink,
    *,
    say: Callable[[str], None],
    port: int | None = None,
) -> Iterator[Api]:
    """Serve the API by a child process for as long as the context lasts. Needs the extra `api`.

    Raises:
        ConfigurationError: the port that was asked for cannot be listened on, or none can.
    """
    key, is_new = _development_key(data_dir / KEY_FILE, settings)
    with _listening(data_dir / PORT_FILE, port, say) as listening:
        command = [sys.executable, "-P", "-m", f"{__package__}.api_child", str(listening.fileno())]
        pool = WorkerPool(
            1,
            environment,
            lambda _number, line: log(API_NUMBER, line),
            command=command,
            descriptors=[listening.fileno()],
        )
        pool.start()
        try:
            yield Api(address_of(listening), key, is_new)
        finally:
            pool.stop()


def _listening(path: Path, wanted: int | None, say: Callable[[str], None]) -> socket.socket:
    """Listen on the wanted port or on that of the latest start; the file has it for the next one."""
    kept = _kept_port(path)
    try:
        listening = listening_socket(HOST, wanted or kept or PREFERRED_PORT)
    except ConfigurationError as error:
        if wanted is not None:
            raise
        listening = listening_socket(HOST, 0)
        if kept is not None:
            # Not kept: the next start tries the one that people know again.
            say(f"The API's port of the last start is taken ({error.message}): it has another one. --port chooses one")
            return listening
    _replace(path, str(listening.getsockname()[1]))
    return listening


def _kept_port(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdecimal() and 0 < int(text) < 65_536 else None  # noqa: PLR2004  the range of ports


def _development_key(path: Path, settings: Settings) -> tuple[str, bool]:
    """Return the key of the data directory and whether it is new; one that works no more is replaced."""
    kept = path.read_text().strip() if path.exists() else ""
    with ledger_connection(settings) as connection:
        rows = connection.execute(FIND_KEYS, {"key_ids": [key_id_of(kept)]}).fetchall()
        row = matching(kept, [KeyRow._make(row) for row in rows])
        if row is not None and row.public_id == settings.store:
            return kept, False
        key = create_key(connection, settings.store, KEY_NAME)
    _replace(path, key)
    return key, True


def _replace(path: Path, line: str) -> None:
    """Let the file have this line and no other, for its owner alone."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{line}\n")
    draft.replace(path)
