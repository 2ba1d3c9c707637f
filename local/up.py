"""`creditlane up`: the whole local stack in the foreground."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer

from ..cli.api import is_api_installed
from ..cli.output import announce
from ..cli.process_pool import print_log_line
from ..cli.stop_signals import StopSignals
from ..lanes.log_stream import adopt_standard_error
from ..schemas.errors import CreditlaneError
from .api_server import KEY_FILE, Api
from .stack import Stack, running_stack
from .stack_record import DATA_DIRECTORY

#: How often the embedded servers are checked, in seconds.
CHECK_SECONDS = 1.0

DataDirectory = Annotated[Path, typer.Option("--data-dir", help="Where the data lives; it survives a stop.")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Number of worker processes.")]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65_535, help="Port of the HTTP API; left out, the last start's, at first 8000."),
]

READY = """\
{workers} worker processes take commands, one delivers webhooks, one does the jobs; their log follows. In another shell:
    eval "$(creditlane env --export)"    # then Client.from_env() and every creditlane command reach this stack
    creditlane status
{api}
Ctrl-C stops all of it."""
NO_API = "The HTTP API is not served: it needs `pip install 'creditlane[api]'`."
API = """\
The HTTP API listens on {url}; {url}/docs shows every operation.
    {key}
    curl -H "x-api-key: $CREDITLANE_API_KEY" "$CREDITLANE_API_URL/v1/customer-credits/accounts"    # after that eval"""
NEW_KEY = "Its development key, shown this once: {key}"
KEPT_KEY = "Its development key is in {path}"


def up_command(data_dir: DataDirectory = DATA_DIRECTORY, workers: Workers = 2, port: Port = None) -> None:
    """Run the whole local stack in the foreground: Postgres, Redis, workers, jobs, HTTP API. Ctrl-C stops it all.

    Nothing needs to be installed but creditlane[worker,api,embedded]. With CREDITLANE_DATABASE_URL or
    CREDITLANE_REDIS_URL set to a server that somebody else runs, that one is used and left alone at the end. The API
    keeps its port and its key from start to start.

    Example:  creditlane up --workers 2 --port 8080
    """
    with StopSignals() as signals:
        try:
            log_format = "console" if adopt_standard_error().isatty() else None
            with running_stack(
                data_dir,
                workers,
                signals,
                say=announce,
                worker_log=print_log_line,
                log_format=log_format,
                with_api=is_api_installed(),
                api_port=port,
                with_jobs=True,
            ) as stack:
                announce(READY.format(workers=workers, api=_about(stack.api, data_dir)))
                _watch(stack)
        except KeyboardInterrupt:
            # To be stopped is how this ends.
            announce("All of it has stopped")


def _about(api: Api | None, data_dir: Path) -> str:
    if api is None:
        return NO_API
    key = NEW_KEY.format(key=api.key) if api.is_key_new else KEPT_KEY.format(path=data_dir / KEY_FILE)
    return API.format(url=api.url, key=key)


def _watch(stack: Stack) -> None:
    """Start an embedded server again when it is gone; workers and clients come back to it by themselves."""
    while True:
        time.sleep(CHECK_SECONDS)
        for name, server in stack.servers.items():
            if server.pid is None:
                announce(f"{name} is gone; it starts again")
                try:
                    server.start()
                except (CreditlaneError, OSError, subprocess.SubprocessError) as error:
                    # Among them a disk that is full: what is stopped for that would not come back by itself.
                    announce(f"{name} does not start, trying again: {str(error).splitlines()[0]}")
