"""`creditlane api`."""

from __future__ import annotations

import importlib.util
import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from ..producer.api.listening_socket import address_of, listening_socket
from ..schemas.errors import ConfigurationError
from ..schemas.settings import load_settings
from .output import announce

#: What the API needs beside the command line.
API_PACKAGES = ("fastapi", "fastapi_offline", "httptools", "prometheus_client", "uvicorn")


def is_api_installed() -> bool:
    """Return whether the extra `api` is installed."""
    return all(importlib.util.find_spec(package) is not None for package in API_PACKAGES)


def api_command(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 for any that is free.")] = 8_000,
) -> None:
    """Serve the HTTP API until stopped: SIGTERM or Ctrl-C lets it finish the requests under way.

    Run as many as you like, behind any proxy: none keeps anything that another needs. Needs CREDITLANE_REDIS_URL and
    CREDITLANE_DATABASE_URL.

    Example:  creditlane api --host 0.0.0.0 --port 8000
    """
    if not is_api_installed():
        raise ConfigurationError("the API needs `pip install 'creditlane[api]'`")
    from ..producer.api.serving import serve

    settings = load_settings()
    settings.require_database_url()
    settings.require_redis_url()
    with listening_socket(host, port) as listening:
        announce(_listens(address_of(listening), settings.log_format))
        serve(settings, listening)


def _listens(address: str, log_format: str | None) -> str:
    """Return the line that says the address: to programs as JSON, like the log, with which it is often read as one."""
    if (log_format or ("console" if sys.stdout.isatty() else "json")) == "console":
        return f"The API listens on {address}"
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"event": "the API listens", "url": address, "level": "info", "timestamp": now})
