"""The URLs of a data directory's own servers, kept from start to start.

A shell that has taken the settings of a stack keeps them when it stops. Started again from there, the stack must not
take its own servers, which are not up yet, for servers that somebody else runs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..schemas.settings import Settings
from .trusted_paths import open_trusted, trusted_directory

URLS_NAME = "embedded-urls.json"

_urls = TypeAdapter(frozenset[str])


def without_own(settings: Settings, data_dir: Path) -> Settings:
    """Return the settings without the URLs that the latest start on the directory gave its own servers.

    Raises:
        UntrustedPath: somebody else may have written what is there.
    """
    own = _read(data_dir)
    given = {name: getattr(settings, name) for name in ("database_url", "operator_database_url", "redis_url")}
    return settings.model_copy(update={name: None for name, url in given.items() if url in own})


def keep_own(data_dir: Path, urls: frozenset[str]) -> None:
    """Keep the URLs of the servers that this start has brought, for the next one."""
    path = data_dir / URLS_NAME
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(_urls.dump_json(urls))
    draft.replace(path)


def _read(data_dir: Path) -> frozenset[str]:
    with suppress(FileNotFoundError, ValidationError), trusted_directory(data_dir) as opened:
        file = open_trusted(opened, data_dir / URLS_NAME, os.O_RDONLY)
        with os.fdopen(file, "rb") as content:
            return _urls.validate_json(content.read())
    return frozenset()
