"""The middleware in its order around the operations: the request log, the check of keys, the limits, the fast path."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp

from ....schemas.settings import Settings
from ..auth import KeyLookup
from ..metrics.requests import RequestMetrics
from ..routes import monitoring
from .address_limits import AddressLimits
from .body_limits import BodyLimits
from .content_coding import PlainBodies
from .fast_path import FastPath
from .head_requests import HeadAsGet
from .key_check import KeyCheck
from .request_limits import Limits
from .request_log import RequestLog


def add_middleware(app: FastAPI, settings: Settings) -> None:
    """Put all of it around the app. Called once, before its first request."""
    app.state.settings = settings
    app.state.key_lookup = KeyLookup()
    app.state.limits = Limits(settings)
    app.state.address_limits = AddressLimits(settings)
    app.state.request_metrics = metrics = RequestMetrics()
    app.include_router(monitoring.router)
    # Inside the limits, so that it gets whole bodies.
    app.add_middleware(FastPath)
    app.add_middleware(BodyLimits, settings=settings)
    app.add_middleware(PlainBodies)
    # Around all of them: nobody sends a body before it is known whose it is.
    app.add_middleware(KeyCheck)
    build = app.build_middleware_stack

    def build_with_log() -> ASGIApp:
        # Around everything, also around Starlette's own layer that answers a defect with 500: that is logged, too.
        return RequestLog(HeadAsGet(build()), metrics)

    app.build_middleware_stack = build_with_log  # type: ignore[method-assign]
