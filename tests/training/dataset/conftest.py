"""A file server on this machine that can cut, refuse and forget, as real ones do."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.dataset.download import Published


@dataclass
class FileServer:
    """What is served and how; `cuts` and `statuses` are used up one a request."""

    port: int = 0
    content: bytes = b""
    etag: str = '"1"'
    ranges: bool = True
    length: bool = True
    content_range: str | None = None  # instead of the true one
    cuts: list[int] = field(default_factory=list)  # bytes after which the connection is closed
    statuses: list[int] = field(default_factory=list)  # answers before any content; 0 lets a request pass
    asked: list[dict[str, str]] = field(default_factory=list)  # Range and If-Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/photos.tgz"

    def published(self, **changes: object) -> Published:
        facts = {"url": self.url, "sha256": hashlib.sha256(self.content).hexdigest(), "size": len(self.content)}
        return Published(**{**facts, **changes})  # type: ignore[arg-type]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append({name: request.headers[name] for name in ("Range", "If-Range") if request.headers[name]})
        if self.statuses and (status := self.statuses.pop(0)):
            request.send_error(status)
            return
        start = self._start(request)
        if start >= len(self.content) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            span = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            request.send_header("Content-Range", self.content_range or span)
        if self.length:
            request.send_header("Content-Length", str(len(self.content) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        body = self.content[start:]
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        asked, condition = request.headers["Range"], request.headers["If-Range"]
        if not self.ranges or asked is None or condition not in (None, self.etag):
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))


@pytest.fixture
def server() -> Iterator[FileServer]:
    served = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Tests print nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = listening.server_port
    with listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield served
        listening.shutdown()
        thread.join()
