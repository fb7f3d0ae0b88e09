"""A local HTTP server that can break off, refuse, corrupt and forget how to resume."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Files:
    """What the server gives, and how it misbehaves."""

    content: dict[str, bytes] = field(default_factory=dict)
    """Path (without leading slash) to bytes."""
    break_after: list[int] = field(default_factory=list)
    """Bytes after which the next answers break off, one entry each."""
    statuses: list[int] = field(default_factory=list)
    """Status codes of the next answers instead of the file, one entry each."""
    ranges: bool = True
    """Whether a Range is honoured."""
    content_type: str = "application/octet-stream"
    etag: str = '"1"'
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of every request so far."""
    address: str = ""


def _handler(files: Files) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            files.requests.append((self.path.lstrip("/"), asked))
            if files.statuses:
                self.send_error(files.statuses.pop(0))
                return
            body = files.content.get(self.path.lstrip("/"))
            if body is None:
                self.send_error(404)
                return
            unchanged = self.headers.get("If-Range", files.etag) == files.etag
            start = int(asked[6:].split("-")[0]) if asked and files.ranges and unchanged else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            rest = body[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.send_header("Content-Type", files.content_type)
            self.send_header("ETag", files.etag)
            self.end_headers()
            self.wfile.write(rest[: files.break_after.pop(0)] if files.break_after else rest)

    return Handler


@contextmanager
def file_server() -> Iterator[Files]:
    """Serve until the block ends; `address` has no slash at its end."""
    files = Files()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(files))
    files.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
