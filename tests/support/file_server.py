"""A local HTTP server that can break off, stall, refuse, change and forget how to resume."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
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
    retry_after: str = ""
    """Sent with these statuses."""
    drops: int = 0
    """How many of the next connections end without an answer."""
    reset_after: list[int] = field(default_factory=list)
    """Bytes after which the next answers are torn off, one entry each."""
    stall_after: list[int] = field(default_factory=list)
    """Bytes after which the next answers fall silent, one entry each."""
    on_request: Callable[[str], None] | None = None
    """Called with the path before each answer."""
    ranges: bool = True
    """Whether a Range is honoured."""
    content_type: str = "application/octet-stream"
    types: dict[str, str] = field(default_factory=dict)
    """Content types of paths, where they differ."""
    etag: str = '"1"'
    """Empty: none is sent."""
    last_modified: str = ""
    redirects: dict[str, str] = field(default_factory=dict)
    """Paths that lead on to other addresses."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of every request so far."""
    cookies: set[str] = field(default_factory=set)
    """Cookie headers that came."""
    address: str = ""
    closing: threading.Event = field(default_factory=threading.Event)


def _handler(files: Files) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

        def do_HEAD(self) -> None:
            self._answer(body_wanted=False)

        def do_GET(self) -> None:
            self._answer(body_wanted=True)

        def _answer(self, body_wanted: bool) -> None:
            asked = self.headers.get("Range")
            path = self.path.lstrip("/")
            files.requests.append((path, asked))
            files.cookies.add(self.headers.get("Cookie") or "")
            if files.on_request:
                files.on_request(path)
            if files.drops:
                files.drops -= 1
                self._tear_off()
                return
            if files.statuses:
                self.send_response(files.statuses.pop(0))
                if files.retry_after:
                    self.send_header("Retry-After", files.retry_after)
                self.end_headers()
                return
            if path in files.redirects:
                self.send_response(302)
                self.send_header("Location", files.redirects[path])
                self.end_headers()
                return
            body = files.content.get(path)
            if body is None:
                self.send_error(404)
                return
            validator = files.etag or files.last_modified
            unchanged = self.headers.get("If-Range", validator) == validator
            start = int(asked[6:].split("-")[0]) if asked and files.ranges and unchanged else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            rest = body[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(rest)))
            self.send_header("Content-Type", files.types.get(path, files.content_type))
            if files.etag:
                self.send_header("ETag", files.etag)
            if files.last_modified:
                self.send_header("Last-Modified", files.last_modified)
            self.end_headers()
            if body_wanted:
                self._send(rest)

        def _send(self, rest: bytes) -> None:
            if files.stall_after:
                self.wfile.write(rest[: files.stall_after.pop(0)])
                files.closing.wait()
            elif files.reset_after:
                self.wfile.write(rest[: files.reset_after.pop(0)])
                self._tear_off()
            else:
                self.wfile.write(rest[: files.break_after.pop(0)] if files.break_after else rest)

        def _tear_off(self) -> None:
            # Closing with a linger time of 0 sends a reset instead of an end.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that go away and connections broken on purpose."""


@contextmanager
def file_server() -> Iterator[Files]:
    """Serve until the block ends; `address` has no slash at its end."""
    files = Files()
    server = _Server(("127.0.0.1", 0), _handler(files))
    files.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        files.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
