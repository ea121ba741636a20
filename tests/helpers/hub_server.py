"""What huggingface_hub asks of the hub, answered over a real connection from folders of this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)


class Hub(ThreadingHTTPServer):
    """`folders` are its repositories: owner/name of models, datasets/owner/name of datasets. By name: owner/gated and
    owner/fails refuse as the hub does, others are unknown."""

    daemon_threads = True

    def __init__(self, folders: dict[str, Path], port: int = 0):
        super().__init__(("127.0.0.1", port), Answer)
        self.folders, self.asked = folders, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def up(self):
        thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append(path)
        api = path.startswith("api/")
        path = path.removeprefix("api/").removeprefix("models/")
        repository = "/".join(path.split("/")[: 3 if path.startswith("datasets/") else 2])
        what, _, rest = path.removeprefix(f"{repository}/").partition("/")
        revision, _, file = (rest, "", "") if what == "revision" else rest.partition("/")
        folder = self.server.folders.get(repository)
        if repository == "owner/fails":
            self.answer(500)
        elif repository == "owner/forbidden":
            self.answer(403)
        elif folder is None:
            self.answer(401, error="RepoNotFound")  # the hub tells nobody which names are private
        elif revision not in REVISIONS:
            self.answer(404, error="RevisionNotFound")
        elif api and what == "revision":
            self.answer(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode())
        elif api:
            files = sorted(one for one in folder.rglob("*") if one.is_file())
            self.answer(200, json.dumps([self.entry(folder, one) for one in files]).encode())
        elif repository == "owner/gated":
            self.answer(403, error="GatedRepo")
        elif (folder / file).is_file():
            self.answer(200, (folder / file).read_bytes())
        else:
            self.answer(404, error="EntryNotFound")

    do_HEAD = do_GET

    @staticmethod
    def entry(folder: Path, file: Path) -> dict:
        blob = hashlib.sha1(file.read_bytes()).hexdigest()
        return {"type": "file", "path": str(file.relative_to(folder)), "size": file.stat().st_size, "oid": blob}

    def answer(self, status: int, content: bytes = b"", error: str | None = None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if error:
            self.send_header("X-Error-Code", error)
        else:
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass
