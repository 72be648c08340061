"""A stand-in for the HTTP interface of the Hugging Face hub on 127.0.0.1: repositories in memory, one token."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_standin"


@dataclass
class Hub:
    """What the server has, and what it was asked."""

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Files by repository and revision."""
    requests: list[str] = field(default_factory=list)

    def commit(self, name: str, revision: str = "main") -> str:
        files = self.repositories[name][revision]
        return hashlib.sha1(
            repr(sorted((k, hashlib.sha1(v).hexdigest()) for k, v in files.items())).encode()
        ).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
            self.send_response(status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def file(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0].strip("/").split("/")
            if len(path) < 5 or path[2] != "resolve":
                return self.answer(404)
            name, revision, file = "/".join(path[:2]), path[3], "/".join(path[4:])
            revisions = hub.repositories.get(name)
            if revisions is None:
                return self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            if revision not in revisions:
                revision = next((known for known in revisions if hub.commit(name, known) == revision), revision)
            if revision not in revisions:
                return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Revision not found")
            commit, content = hub.commit(name, revision), revisions[revision].get(file)
            if content is None:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(200, content, X_Repo_Commit=commit, ETag=etag)

        do_GET = do_HEAD = file

        def do_POST(self) -> None:
            hub.requests.append(f"POST {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            path = self.path.partition("?")[0].strip("/").split("/")
            if path == ["api", "validate-yaml"]:
                return self.answer(200, b'{"errors": [], "warnings": []}')
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.answer(401, b'{"error": "Invalid username or password."}')
            if path == ["api", "repos", "create"]:
                given = json.loads(body)
                name = f"{given['organization']}/{given['name']}"
                exists = name in hub.repositories
                hub.repositories.setdefault(name, {"main": {}})
                return self.answer(409 if exists else 200, json.dumps({"url": f"{hub.url}/{name}"}).encode())
            name, action, revision = "/".join(path[2:4]), path[4], path[5]
            if action == "branch":
                exists = revision in hub.repositories[name]
                hub.repositories[name].setdefault(revision, dict(hub.repositories[name]["main"]))
                return self.answer(409 if exists else 201)
            if action == "preupload":
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                return self.answer(200, json.dumps({"files": files}).encode())
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.repositories[name][revision][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = hub.commit(name, revision)
            url = f"{hub.url}/{name}/commit/{commit}"
            return self.answer(200, json.dumps({"commitUrl": url, "commitOid": commit, "success": True}).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
