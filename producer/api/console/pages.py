"""`/`, `/docs` and `/openapi.json`: what the API can do, for people and programs. Nothing of it comes from elsewhere.

The files of Swagger UI are those that the package `fastapi-offline` carries; its code is not used. The licences of what
is in them, which it leaves out, are in `licences/`, as Swagger UI's own package has them.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse

from ..errors import not_found
from ..middleware.response_headers import CONTENT_SECURITY_POLICY
from ..read_once_for_many import SharedRead

#: Bytes of a file that are sent at once: a client that does not read makes no more be held.
CHUNK_BYTES = 65_536
#: The page runs its own scripts and asks its own server. Swagger UI sets styles on its elements.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Without a scheme and a host, so that it works behind any name and path.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Creditlane API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
<p>Shown by Swagger UI: <a href="docs/LICENSE.txt">licence</a>, <a href="docs/NOTICE.txt">notice</a>,
<a href="docs/swagger-ui-bundle.js.LICENSE.txt">what is in it</a>.</p>
</body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", layout: "BaseLayout", deepLinking: true, showExtensions: true,
  showCommonExtensions: true, validatorUrl: null,
});
"""
_HOME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Creditlane API</title>
</head>
<body>
<p>This is the HTTP API of Creditlane. <a href="docs">/docs</a> shows every operation,
<a href="openapi.json">/openapi.json</a> describes them for programs,
<a href="readyz">/readyz</a> says how the server is.</p>
</body>
</html>
"""
_START_NAME = "start.js"
#: The version of Swagger UI that the licences are of.
SWAGGER_UI_VERSION = "5.32.6"
_LICENCES = ("LICENSE.txt", "NOTICE.txt", "swagger-ui-bundle.js.LICENSE.txt")
#: The files of the page, and their types.
_TYPES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon.png": "image/png",
    _START_NAME: "text/javascript",
    **dict.fromkeys(_LICENCES, "text/plain"),
}

router: APIRouter = APIRouter(include_in_schema=False)


class _File(NamedTuple):
    data: bytes
    media_type: str


def add_docs(app: FastAPI) -> None:
    """Let the app show what it can do. Its document is made once, when it is first asked for."""

    def document() -> bytes:
        return json.dumps(app.openapi(), separators=(",", ":")).encode()

    # In a thread: it takes long enough for other requests to notice.
    app.state.document = SharedRead(lambda: asyncio.to_thread(document), good_seconds=math.inf)
    app.include_router(router)


@router.get("/", name="home")
async def home() -> Response:
    return HTMLResponse(_HOME)


@router.get("/openapi.json", name="openapi")
async def openapi(request: Request) -> Response:
    document: SharedRead[bytes] = request.app.state.document
    return Response(await document.result(), media_type="application/json")


@router.get("/docs", name="docs")
async def page() -> Response:
    return HTMLResponse(_PAGE, headers={CONTENT_SECURITY_POLICY.decode(): PAGE_POLICY})


@router.get("/docs/{name}", name="docs_file")
async def file(name: str) -> Response:
    if name not in _TYPES:
        raise not_found("name")
    found = _file(name)
    headers = {"Content-Length": str(len(found.data)), "Cache-Control": "max-age=3600"}
    return StreamingResponse(_chunks(found.data), headers=headers, media_type=found.media_type)


@cache
def _file(name: str) -> _File:
    data = _START if name == _START_NAME else _file_path(name).read_bytes()
    return _File(data, _TYPES[name])


def _file_path(name: str) -> Traversable:
    return (files(__package__) / "licences" if name in _LICENCES else files("fastapi_offline") / "static") / name


async def _chunks(data: bytes) -> AsyncIterator[memoryview]:
    for start in range(0, len(data), CHUNK_BYTES):
        yield memoryview(data)[start : start + CHUNK_BYTES]
