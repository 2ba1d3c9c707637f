"""The API beside the workers of the local stack, and the key that developers use with it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..producer.api.addresses import address_of, listening_socket
from ..producer.api.keys import FIND_KEYS, KeyRow, create_key, key_id_of, matching
from ..producer.cli.ledger_connection import ledger_connection
from ..schemas.errors import ConfigurationError
from ..schemas.settings import Settings
from .worker_pool import API_NUMBER, LogSink, WorkerPool

#: The development key stands here, for its owner alone.
KEY_FILE = "api-key"
KEY_NAME = "development"
#: Taken if it is free.
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
def served_api(data_dir: Path, settings: Settings, environment: Mapping[str, str], log: LogSink) -> Iterator[Api]:
    """Serve the API by a child process for as long as the context lasts. Needs the extra `api`.

    Raises:
        ConfigurationError: no port can be listened on.
    """
    key, is_new = _development_key(data_dir / KEY_FILE, settings)
    with _listening() as listening:
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


def _listening() -> socket.socket:
    try:
        return listening_socket(HOST, PREFERRED_PORT)
    except ConfigurationError:
        return listening_socket(HOST, 0)


def _development_key(path: Path, settings: Settings) -> tuple[str, bool]:
    """Return the key of the data directory and whether it is new; one that works no more is replaced."""
    kept = path.read_text().strip() if path.exists() else ""
    with ledger_connection(settings) as connection:
        rows = connection.execute(FIND_KEYS, {"key_ids": [key_id_of(kept)]}).fetchall()
        row = matching(kept, [KeyRow._make(row) for row in rows])
        if row is not None and row.public_id == settings.store:
            return kept, False
        key = create_key(connection, settings.store, KEY_NAME)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{key}\n")
    draft.replace(path)
    return key, True
