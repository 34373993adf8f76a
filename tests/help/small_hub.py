"""A small hub on loopback: what huggingface_hub's client asks of the real one for a model."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """A model on the hub. revisions: by branch, tag or commit. refusal: status, error code and
    message with which every request is answered. breaks: file -> bytes after which its first
    transfer breaks off."""

    revisions: Mapping[str, Path]
    refusal: tuple[int, str, str] | None = None
    breaks: dict[str, int] = field(default_factory=dict)

    def find(self, revision: str) -> Path | None:
        """The folder of a branch, tag or commit."""
        commits = {commit_of(folder): folder for folder in self.revisions.values()}
        return {**commits, **self.revisions}.get(revision)


@dataclass
class SmallHub:
    """The hub at `address`. asked: every request, as method, path and the range that it wanted."""

    address: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)


@contextmanager
def serve_hub() -> Iterator[SmallHub]:
    """A hub without models, until the block ends."""
    hub: SmallHub

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, self.headers.get("Range", "")))
            parts = path.strip("/").split("/")
            is_api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if is_api else parts[:2])
            found = hub.repositories.get(name)
            if found is None:
                self.refuse(401, "RepoNotFound", "Repository not found")
            elif found.refusal is not None:
                self.refuse(*found.refusal)
            elif is_api:
                self.answer_api(found, parts[4:], with_body)
            else:
                self.send_file(found, parts[3], "/".join(parts[4:]), with_body)

        def answer_api(self, found: Repository, parts: list[str], with_body: bool) -> None:
            revision = parts[1] if len(parts) > 1 else "main"
            folder = found.find(revision)
            if folder is None:
                self.refuse(404, "RevisionNotFound", "Revision not found")
                return
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            if parts[:1] == ["tree"]:
                entries = [
                    {
                        "type": "file",
                        "path": path.relative_to(folder).as_posix(),
                        "size": path.stat().st_size,
                        "oid": sha1(path.read_bytes()).hexdigest(),
                    }
                    for path in files
                ]
                self.send_json(entries, with_body)
                return
            names = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
            said = {"id": "model", "sha": commit_of(folder), "siblings": names, "private": False}
            self.send_json(said, with_body)

        def send_file(self, found: Repository, revision: str, name: str, with_body: bool) -> None:
            folder = found.find(revision)
            if folder is None:
                self.refuse(404, "RevisionNotFound", "Revision not found")
                return
            if not (folder / name).is_file():
                self.refuse(404, "EntryNotFound", "Entry not found")
                return
            content = (folder / name).read_bytes()
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit_of(folder))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.end_headers()
            if not with_body:
                return
            limit = found.breaks.pop(name, None)
            self.wfile.write(content[start:limit])
            if limit is not None:
                self.close_connection = True

        def send_json(self, said: object, with_body: bool) -> None:
            content = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = SmallHub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commit_of(folder: Path) -> str:
    """The commit that stands for a folder's content on the hub."""
    return sha1(str(folder).encode()).hexdigest()
