"""What is let in: the page's own requests, from its own origin, without addresses that the server would fetch."""

import json
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
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


class Guard:
    """ASGI middleware in front of gradio's server.

    Args:
        max_bytes: of one upload.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        refusal = _refusal(scope)
        if refusal is None and scope["method"] == "POST":
            with_file = scope["path"].startswith((f"{API}/upload", f"{API}/component_server"))
            if with_file:
                receive = _limited(receive, self.max_bytes + LARGEST_QUESTION)
            else:
                refusal, receive = await _without_addresses(receive)
        if refusal is None:
            try:
                await self.app(scope, receive, send)
            except ClientDisconnect:  # or too much was sent
                refusal = 413, f"Files may have {self.max_bytes} bytes here."
        if refusal is not None:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)


def _refusal(scope: Scope) -> tuple[int, str] | None:
    """The status and the words with which a request is refused by what it asks for and where it comes from."""
    headers, path = Headers(scope=scope), scope["path"]
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return 403, "Another site may not use this page."
    known = {"GET": READ, "HEAD": READ, "POST": WRITTEN}.get(scope["method"], ())
    if not path.startswith(known) and not (path == "/" and known is READ):
        return 404, "There is no such thing here."
    if path.startswith(f"{API}/file=") and "://" in path.replace(":/", "://"):
        return 403, "This page fetches nothing from elsewhere."
    return None


async def _without_addresses(receive: Receive) -> tuple[tuple[int, str] | None, Receive]:
    """The request with its body read; refused where the body is no JSON, too long, or names a file elsewhere."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_QUESTION:
            return (413, f"The request is longer than {LARGEST_QUESTION} bytes."), receive
        if not message.get("more_body"):
            break
    try:
        remote = _names_address(json.loads(body))
    except (ValueError, RecursionError):
        return (400, "The request is not JSON."), receive
    if remote:
        return (403, "This page fetches nothing from elsewhere: save the file and upload it."), receive
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return None, again


def _names_address(value: Any) -> bool:
    """Whether a file is named by an address rather than by its place in the temporary folder."""
    if isinstance(value, dict):
        path = value.get("path")
        return (isinstance(path, str) and "://" in path) or any(map(_names_address, value.values()))
    return isinstance(value, list) and any(map(_names_address, value))


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
