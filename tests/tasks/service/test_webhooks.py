"""Webhooks against a server that refuses at first."""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets.sources.addresses import AddressPolicy
from tasks.service.queue import DONE, JobQueue
from tasks.service.webhooks import SIGNATURE, Webhooks, sign
from tests.tasks.service.test_queue import Clock


class Receiver(ThreadingHTTPServer):
    """Keeps what it is told, after refusing as often as it is to."""

    refuses = 0

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        refused = len(self.server.told) < self.server.refuses
        self.server.told.append((self.headers[SIGNATURE], body))
        self.send_response(503 if refused else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_it_is_signed_and_tried_again_until_it_is_taken(receiver: Receiver, tmp_path: Path) -> None:
    clock = Clock()
    queue = JobQueue(f"sqlite:///{tmp_path}/q.db", 3, clock)
    receiver.refuses = 2
    hooks = Webhooks(queue, "secret", AddressPolicy(allow_private=True), clock)
    name = queue.add({}, f"http://127.0.0.1:{receiver.server_address[1]}/hook")
    queue.end(name, DONE, {"frames": 3})
    assert [hooks.send_due(), hooks.send_due()] == [1, 0]
    clock.now += 5
    assert hooks.send_due() == 1
    clock.now += 10
    assert hooks.send_due() == 1
    clock.now += 1e6
    assert hooks.send_due() == 0
    assert len(receiver.told) == 3
    for (signature, body), at in zip(receiver.told, (1000, 1005, 1015), strict=True):
        expected = hmac.new(b"secret", f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        assert signature == f"t={at},v1={expected}"
    queue.close()


def test_private_addresses_are_not_told(receiver: Receiver, tmp_path: Path) -> None:
    queue = JobQueue(f"sqlite:///{tmp_path}/q.db", 3, Clock())
    name = queue.add({}, f"http://127.0.0.1:{receiver.server_address[1]}/hook")
    queue.end(name, DONE, {})
    hooks = Webhooks(queue, "secret", AddressPolicy(), Clock())
    assert hooks.send_due() == 1
    assert not receiver.told
    queue.close()


def test_another_secret_gives_another_signature() -> None:
    assert sign("a", b"x", 1) != sign("b", b"x", 1)
    assert sign("a", b"x", 1) != sign("a", b"x", 2)
    assert sign("a", b"x", 1) != sign("a", b"y", 1)
