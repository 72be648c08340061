"""The guard in front of the server: the page's own requests, from its own origin, about the server's own files."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/gradio_api"

READ = (
    "/assets/",
    "/static/",
    "/svelte/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    f"{API}/file=",
    f"{API}/heartbeat/",
    f"{API}/queue/data",
    f"{API}/upload_progress",
    f"{API}/startup-events",
    f"{API}/app_id",
)
WRITTEN = (f"{API}/queue/join", f"{API}/cancel", f"{API}/reset", f"{API}/upload", f"{API}/component_server")
"""All that the page asks for begins with one of these. The rest of gradio's server (fetching URLs, proxies, editing of
the program, monitoring) does not exist here."""

LARGEST_QUESTION = 2**20
"""Bytes of a request that holds no file."""


HEADERS = [(b"content-security-policy", b"frame-ancestors 'none'"), (b"x-frame-options", b"DENY")]
"""No other site may show the page within its own."""


class Guard:
    """ASGI middleware in front of gradio's server.

    Args:
        max_bytes: of one upload.
        folder: of the files that requests may name.
        room: returns how many bytes all uploads together may still have.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, folder: Path, room: Callable[[], int]) -> None:
        self.app, self.max_bytes, self.folder, self.room = app, max_bytes, folder, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        try:
            _check(scope)
            if scope["method"] == "POST" and scope["path"].startswith((f"{API}/upload", f"{API}/component_server")):
                room = await run_in_threadpool(self.room)
                if room < int(Headers(scope=scope).get("content-length") or 0):
                    raise HTTPException(507, "There is no room for more files here: try again in ten minutes.")
                receive = _limited(receive, min(self.max_bytes + LARGEST_QUESTION, room))
            elif scope["method"] == "POST":
                receive = await _without_foreign_files(scope, receive, self.folder)
            return await self.app(scope, receive, send_with_headers)
        except ClientDisconnect:  # or too much was sent
            refusal = PlainTextResponse(f"Files may have {self.max_bytes} bytes here.", 413)
        except HTTPException as error:
            refusal = PlainTextResponse(error.detail, error.status_code)
        await refusal(scope, receive, send_with_headers)


def _check(scope: Scope) -> None:
    """Raises HTTPException where a request is refused by what it asks for and where it comes from."""
    headers, path = Headers(scope=scope), scope["path"]
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        raise HTTPException(403, "Another site may not use this page.")
    known = {"GET": READ, "HEAD": READ, "POST": WRITTEN}.get(scope["method"], ())
    if not path.startswith(known) and not (path == "/" and known is READ):
        raise HTTPException(404, "There is no such thing here.")
    if path.startswith(f"{API}/file=") and "://" in path.replace(":/", "://"):
        raise HTTPException(403, "This page fetches nothing from elsewhere.")


async def _without_foreign_files(scope: Scope, receive: Receive, folder: Path) -> Receive:
    """Read the body of a request. Raises HTTPException if it is no JSON, too long, or names a file outside `folder`."""
    try:
        body = await Request(scope, _limited(receive, LARGEST_QUESTION)).body()
        foreign = _names_foreign_file(json.loads(body), folder)
    except ClientDisconnect as error:
        raise HTTPException(413, f"The request is longer than {LARGEST_QUESTION} bytes.") from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "The request is not JSON.") from error
    if foreign:
        raise HTTPException(403, "This page fetches nothing from elsewhere: save the file and upload it.")
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


def _names_foreign_file(value: Any, folder: Path) -> bool:
    """Return whether a file is named by an address, or by a path outside the folder."""
    if isinstance(value, dict):
        path = value.get("path")
        foreign = isinstance(path, str) and not Path(os.path.normpath(path)).is_relative_to(folder)
        return foreign or any(_names_foreign_file(item, folder) for item in value.values())
    return isinstance(value, list) and any(_names_foreign_file(item, folder) for item in value)


def _limited(receive: Receive, max_bytes: int) -> Receive:
    """The body of a request, which ends as if it were broken off after so many bytes."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            return {"type": "http.disconnect"}
        return message

    return counted
