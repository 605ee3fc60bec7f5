"""A stand-in of the hub that takes uploads: a server on this machine that answers the calls of huggingface_hub and keeps what it gets."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandIn:
    """What the server has: repositories with their visibility, branches, and files by branch. Data sets are named ``datasets/ORG/NAME``."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repos: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.address = ""

    def answer(self, method: str, path: str, body: bytes, token: str) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of a call."""
        self.calls.append(f"{method} {path}")
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if token != self.token:
            return 401, {"error": "Invalid user token."}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(\w+)/([^/]+))?", path):
            return self._repo(("" if match[1] == "models" else "datasets/") + match[2], match[3], match[4], body)
        return 404, {"error": f"no such call: {method} {path}"}

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = f"{'datasets/' if asked.get('type') == 'dataset' else ''}{asked['organization']}/{asked['name']}"
        if asked["organization"] == "theirs":
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        if name in self.repos:
            return 409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"}
        self.repos[name] = {"visibility": asked.get("visibility"), "branches": {"main": {}}, "messages": []}
        return 200, {"url": f"{self.address}/{name}", "name": name}

    def _repo(self, name: str, call: str | None, revision: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
        if (repo := self.repos.get(name)) is None:
            return 404, {"error": "Repository not found"}
        if call is None:
            return 200, {"id": name, "sha": "0" * 40, "siblings": [], "private": True, "tags": []}
        if call == "branch":
            repo["branches"].setdefault(revision, {})
            return 200, {}
        if revision not in repo["branches"]:
            return 404, {"error": f"no branch {revision}"}
        if call == "preupload":
            asked = json.loads(body)["files"]
            return 200, {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for file in asked]}
        for line in map(json.loads, body.decode().splitlines()):
            if line["key"] == "header":
                repo["messages"].append(line["value"]["summary"])
            else:
                repo["branches"][revision][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return 200, {"commitUrl": f"{self.address}/{name}/commit/1", "commitOid": "1" * 40, "success": True}


@contextmanager
def hub(token: str = "hf_right") -> Iterator[StandIn]:
    """A running stand-in."""
    here = StandIn(token)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self._body()
            status, content = here.answer(self.command, self.path, body, self.headers.get("authorization", "").removeprefix("Bearer "))
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
