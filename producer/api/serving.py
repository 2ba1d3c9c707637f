"""Serves the API in this process, until a signal stops it."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
from functools import partial
from typing import cast

import uvicorn

from ...lanes.logs import configure_logs
from ...schemas.errors import ConfigurationError
from ...schemas.networks import parse_networks
from ...schemas.settings import Settings
from .app import create_app
from .middleware.connection_guard import KEEP_ALIVE_SECONDS, GuardedProtocol
from .middleware.connection_limits import OTHER_DESCRIPTORS, ConnectionLimits

#: How much longer than its wait for a result a request may take at a stop, in seconds.
STOP_MARGIN_SECONDS = 5.0


def serve(settings: Settings, listening: socket.socket) -> None:
    """Serve on the socket until SIGTERM or SIGINT; then finish the requests under way and return.

    Raises:
        ConfigurationError: it cannot start as it is set up.
    """
    configure_logs(settings.log_format, of_libraries=True)
    trusted = parse_networks(settings.api_trusted_proxies, setting="CREDITLANE_API_TRUSTED_PROXIES")
    app = create_app(settings)
    _raise_descriptor_limit(settings.api_connections + OTHER_DESCRIPTORS)
    limits = ConnectionLimits(settings, trusted, app.state.request_metrics)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(GuardedProtocol, limits=limits)),
        ws="none",
        # Said in any case: by default it believes its own machine, or an environment variable.
        proxy_headers=bool(trusted),
        forwarded_allow_ips=[str(network) for network in trusted],
        # The request log has a line for every request, with its id.
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.wait_timeout_seconds + STOP_MARGIN_SECONDS),
    )
    server = uvicorn.Server(config)
    # At its end uvicorn raises the signals it got once more, for handlers like these: to be stopped is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    # What is loaded by now stays: to search it again and again for garbage would hold requests up by 50 ms.
    gc.collect()
    gc.freeze()
    server.run(sockets=[listening])
    if not server.started:
        raise ConfigurationError("the API cannot start; its log says why")


def _raise_descriptor_limit(wanted: int) -> None:
    """Let this process open so many files, or as many as it is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
