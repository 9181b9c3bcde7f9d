"""A hub on this machine: the calls that huggingface_hub makes for an upload, every byte received kept."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

LARGE = (".safetensors", ".bin", ".pt", ".pth")
TOKEN = "hf_a_token_of_nobody"


@dataclass
class FakeHub:
    """What the hub was told. `files` are the repository's contents by path; `refuse` gives statuses for paths."""

    url: str = ""
    role: str = "write"
    refuse: dict[str, int] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    made: dict[str, object] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict | bytes]:
        """The status and the body for one request."""
        for part, status in self.refuse.items():
            if part in path:
                return status, {"error": f"refused by the test\nwith {status}"}
        if path == "/api/whoami-v2":
            access = {"accessToken": {"role": self.role}}
            return 200, {"name": "tester", "type": "user", "orgs": [{"name": "lab"}], "auth": access}
        if path == "/api/repos/create":
            self.made = json.loads(body)
            owner = self.made.get("organization") or "tester"
            return 200, {"url": f"{self.url}/{owner}/{self.made['name']}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/branch/" in path:
            return 200, {}
        if "/preupload/" in path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if PurePosixPath(file["path"]).suffix in LARGE else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return 200, {"files": modes}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return 200, {
                "transfer": "basic",
                "objects": [o | {"actions": {"upload": {"href": f"{self.url}/lfs/{o['oid']}"}}} for o in objects],
            }
        if method == "PUT" and path.startswith("/lfs/"):
            oid = path.rpartition("/")[2]
            assert hashlib.sha256(body).hexdigest() == oid
            self.stored.append(oid)
            self.objects[oid] = body
            return 200, {}
        if "/commit/" in path:
            return 200, self._commit(path.removeprefix("/api/models/").partition("/commit/")[0], body)
        if "/resolve/" in path:
            name = path.partition("/resolve/")[2].partition("/")[2]
            return (200, self.files[name]) if name in self.files else (404, b"")
        return 404, {"error": f"the fake hub does not know {method} {path}"}

    def _commit(self, repo: str, body: bytes) -> dict:
        paths = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "lfsFile":
                self.files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "header"
                continue
            paths.append(value["path"])
        self.commits.append(sorted(paths))
        return {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.url}/{repo}/commit/{'0' * 40}"}


@contextmanager
def fake_hub(monkeypatch) -> Iterator[FakeHub]:
    """A fake hub in place of the real one for this process, with a login."""
    from huggingface_hub import constants

    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.calls.append(f"{self.command} {self.path}")
            hub.received.append(body)
            status, answer = hub.answer(self.command, self.path, body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            if "/resolve/" in self.path:
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                if status == 404:
                    self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = _serve  # noqa: N815 - names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
