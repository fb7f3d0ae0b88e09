"""As much of Google Cloud Storage's JSON API as gcsfs needs, on 127.0.0.1.

It stands in for the service, of which there is no server program to run: it shows that the
calls fit together, not that Google answers them in the same way.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)(?:/rewriteTo/b/[^/]+/o/(.+))?")
LISTING = re.compile(r"(?:/upload)?/storage/v1/b/([^/]+)/o/?")


@dataclass
class GcsServer:
    """A bucket of objects, and how it fails."""

    bucket: str = "bucket"
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    """Status codes of the next answers, one entry each."""
    address: str = ""

    def resource(self, name: str) -> dict[str, Any]:
        """What the service says of an object."""
        data = self.objects[name]
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        return {
            "name": name,
            "bucket": self.bucket,
            "size": str(len(data)),
            "md5Hash": base64.b64encode(digest).decode(),
        }


def _handler(server: GcsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

        def _serve(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            listing, single = LISTING.fullmatch(url.path), OBJECT.fullmatch(url.path)
            bucket = (listing or single or [None, None])[1]
            if server.statuses:
                self._error(server.statuses.pop(0))
            elif bucket != server.bucket:
                self._error(404)
            elif listing and self.command == "GET":
                self._list(query)
            elif listing:
                self._upload(query, body)
            elif single:
                self._object(unquote(single[2]), unquote(single[3] or ""), query)

        def _list(self, query: dict[str, str]) -> None:
            prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
            names = sorted(name for name in server.objects if name.startswith(prefix))
            items = [n for n in names if not delimiter or delimiter not in n[len(prefix) :]]
            folders = {
                prefix + n[len(prefix) :].split("/")[0] + "/" for n in names if n not in items
            }
            answer = {"items": [server.resource(name) for name in items]}
            self._answer(200, answer | ({"prefixes": sorted(folders)} if folders else {}))

        def _upload(self, query: dict[str, str], body: bytes) -> None:
            kind = query["uploadType"]
            if kind == "multipart":
                boundary = body[
                    : body.index(b"\r\n") if b"\r\n" in body[:90] else body.index(b"\n")
                ]
                _, meta, content, _ = body.split(boundary)
                name = json.loads(meta.split(b"\n\n", 1)[1])["name"]
                server.objects[name] = content.split(b"\n\n", 1)[1][:-1]
                self._answer(200, server.resource(name))
            elif "upload_id" not in query:
                name = query["name"]
                server.uploads[name] = b""
                place = f"{server.address}/upload/storage/v1/b/{server.bucket}/o"
                parameters = urlencode({"uploadType": kind, "upload_id": name})
                self._answer(200, {}, {"Location": f"{place}?{parameters}"})
            elif self.command == "DELETE":
                server.uploads.pop(query["upload_id"])
                self._answer(204, None)
            else:
                name = query["upload_id"]
                start, end, size = map(int, re.findall(r"\d+", self.headers["Content-Range"]))
                server.uploads[name] = server.uploads[name][:start] + body
                if end + 1 < size:
                    self._answer(308, None, {"Range": f"bytes=0-{end}"})
                    return
                server.objects[name] = server.uploads.pop(name)
                self._answer(200, server.resource(name))

        def _object(self, name: str, copy: str, query: dict[str, str]) -> None:
            if name not in server.objects:
                self._error(404)
            elif copy:
                server.objects[copy] = server.objects[name]
                self._answer(200, {"done": True, "resource": server.resource(copy)})
            elif self.command == "DELETE":
                del server.objects[name]
                self._answer(204, None)
            elif query.get("alt") == "media":
                data = server.objects[name]
                limits = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if limits:
                    data = data[int(limits[1]) : int(limits[2]) + 1 if limits[2] else None]
                self._answer(206 if limits else 200, data)
            else:
                self._answer(200, server.resource(name))

        def _error(self, status: int) -> None:
            self._answer(status, {"error": {"code": status, "message": f"status {status}"}})

        def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else b""
            if isinstance(content, dict):
                data = json.dumps(content).encode()
            self.send_response_only(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = _serve

    return Handler


@contextmanager
def gcs_server() -> Iterator[GcsServer]:
    """Serve until the block ends; `address` has no slash at its end."""
    state = GcsServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
