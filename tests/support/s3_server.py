"""A real S3 server process (moto's), and a proxy before it that fails as asked.

Tests take the fixture `s3_server`: the environment then points every S3 client of the test and
of the processes it starts to the server. `FailingProxy` stands between: pass its `address` on
as the endpoint, and list the faults of the next matching requests.
"""

import http.client
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

SERVER = """
import sys, threading
from moto.server import ThreadedMotoServer
from werkzeug.serving import WSGIRequestHandler
WSGIRequestHandler.protocol_version = "HTTP/1.1"
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
"""Keeps connections open, as S3 does, and ends when the test's process does."""

Fault = Literal["500", "503", "drop", "lost", "half", "stall", "choke", "damage"]
"""500 and 503: that answer. drop: the connection breaks while the body is sent. lost: the server
did it, but the answer does not come. half: half of the answer comes. stall: no answer until the
client gives up. choke: the same, in the middle of what is sent. damage: the last byte sent
arrives as another."""

SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>"


@dataclass
class S3Server:
    """A running server.

    Args:
        endpoint: its URL, without a slash at the end.
    """

    endpoint: str

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to use this server alone."""
        return environment(self.endpoint)

    @cached_property
    def client(self) -> Any:
        """A boto3 client that goes to the server itself, past any proxy."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def bucket(self, name: str = "") -> str:
        """Make an empty bucket, of a new name unless one is given; returns its name."""
        name = name or f"bucket-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def unfinished(self, bucket: str) -> list[str]:
        """Keys of multipart uploads that were begun and neither completed nor aborted."""
        uploads = self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [upload["Key"] for upload in uploads]


def environment(endpoint: str) -> dict[str, str]:
    """The environment of a client of `endpoint`, which asks nobody else for anything."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_MAX_ATTEMPTS": "1",
        "no_proxy": "127.0.0.1",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="module")
def s3_process() -> Iterator[S3Server]:
    """The server of a file's tests: others may end processes that they did not start."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    port = process.stdout.readline().strip()
    assert port, "the S3 server did not start"
    yield S3Server(f"http://127.0.0.1:{port}")
    process.stdin.close()
    process.stdout.close()
    process.wait()


@pytest.fixture
def s3_server(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with the environment of this process pointing to it."""
    for name, value in s3_process.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return s3_process


@dataclass
class FailingProxy:
    """What the proxy does with the requests that come."""

    upstream: str
    address: str = ""
    faults: list[Fault] = field(default_factory=list)
    """Of the next matching requests, one entry each; then all goes through."""
    always: Fault | None = None
    """Of every matching request."""
    matches: Callable[[str, str], bool] = lambda method, path: method == "PUT"
    """Method and path (with query) of a request to those that may fail."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and fault (or nothing) of every request so far."""
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, method: str, path: str) -> str:
        """The fault of the request that comes now."""
        with self.lock:
            fault: str = ""
            if self.matches(method, path):
                fault = self.always or (self.faults.pop(0) if self.faults else "")
            self.requests.append((method, path, fault))
            return fault

    def failed(self) -> int:
        """How many requests have failed so far."""
        return sum(1 for request in self.requests if request[2])


def _handler(proxy: FailingProxy) -> type[BaseHTTPRequestHandler]:
    upstream = urlsplit(proxy.upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

        def _serve(self) -> None:
            fault = proxy.fault(self.command, self.path)
            length = int(self.headers.get("Content-Length", 0))
            if fault == "drop":
                self.rfile.read(length // 2)
                self.close_connection = True
                return
            body = self.rfile.read(length // 2) if fault == "choke" else self._body(length)
            if fault in ("stall", "choke"):
                proxy.released.wait()
                self.close_connection = True
                return
            if fault in ("500", "503"):
                content = b"" if self.command == "HEAD" else SLOW_DOWN
                if fault == "500" and content:
                    content = INTERNAL
                self._answer(int(fault), [("Content-Type", "application/xml")], content)
                return
            if fault == "damage":
                body = body[:-1] + bytes([body[-1] ^ 1])
            status, headers, content = self._forward(body)
            if fault == "lost" or (fault == "half" and not content):
                if fault == "half":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
                self.close_connection = True
                return
            self._answer(status, headers, content, half=fault == "half")

        def _body(self, length: int) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(length)
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            skipped = ("connection", "expect", "transfer-encoding", "content-length")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
            headers["Content-Length"] = str(len(body))
            connection = http.client.HTTPConnection(str(upstream.hostname), upstream.port)
            try:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def _answer(
            self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool = False
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if not re.fullmatch("connection|transfer-encoding|content-length", name.lower()):
                    self.send_header(name, value)
            length = next((v for k, v in headers if k.lower() == "content-length"), None)
            head = self.command == "HEAD" and length is not None
            self.send_header("Content-Length", str(length) if head else str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if half else content)
            if half:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing to stderr, since the tests are about clients that give up."""


@contextmanager
def failing_proxy(upstream: str) -> Iterator[FailingProxy]:
    """Serve until the block ends; `address` has no slash at its end."""
    proxy = FailingProxy(upstream)
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    proxy.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
