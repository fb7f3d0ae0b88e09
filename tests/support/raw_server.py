"""A local server whose answers are given byte by byte, also those that break the rules of HTTP."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Conversation:
    """Where the server is, and what it was asked."""

    address: str
    """Without a slash at its end."""
    requests: list[bytes] = field(default_factory=list)
    """The first line and the headers of each request."""


def answer(body: bytes, status: str = "200 OK", *headers: str, length: bool = True) -> bytes:
    """An answer of HTTP.

    Args:
        body: as sent.
        status: code and phrase.
        headers: whole lines.
        length: whether the length of the body is said; else the connection's end ends it.
    """
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def raw_server(*answers: bytes) -> Iterator[Conversation]:
    """Give one answer to each connection, the last to all that follow, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        conversation = Conversation(f"http://127.0.0.1:{listener.getsockname()[1]}")
        left = list(answers)

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as lines:
                    head = b"".join(iter(lines.readline, b"\r\n") if not closing.is_set() else ())
                    if closing.is_set():
                        return
                    conversation.requests.append(head)
                    # Who does not like the headers goes away before the body has come.
                    with suppress(ConnectionError):
                        connection.sendall(left.pop(0) if len(left) > 1 else left[0])

        closing = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield conversation
        finally:
            closing.set()
            # Wakes the thread that waits for a connection.
            socket.create_connection(listener.getsockname()).close()
            thread.join()
