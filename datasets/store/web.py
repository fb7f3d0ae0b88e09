"""Files behind a web server: only to read, for datasets that somebody publishes that way."""

import errno
import http.client
import io
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from datasets.errors import StoreError, UserError
from datasets.redact import redact
from datasets.store.protocol import check_name
from datasets.store.ranges import RangedFile

ATTEMPTS = 5
FIRST_WAIT_S = 1.0
TIMEOUT_S = 60.0
"""Seconds without a byte of the answer, after which a request has failed."""
BUFFER = 1 << 20
PASSING = (408, 429, 500, 502, 503, 504)
"""Answers after which asking again may help."""

Result = TypeVar("Result")


class WebStore:
    """Files below an `http://` or `https://` address.

    Args:
        url: the address of the folder.
        sleep: function that waits between attempts, for seconds; picklable.
    """

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._url = url.rstrip("/")
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"WebStore({self.url!r})"

    @property
    def url(self) -> str:
        return self._url

    def read(self, name: str) -> bytes:
        def action() -> bytes:
            with self._ask(name) as answer:
                return _whole(answer)

        return self._try(name, action)

    def open(self, name: str) -> BinaryIO:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", self._address(name))
        return cast(BinaryIO, io.BufferedReader(_WebFile(self, name, size), BUFFER))

    def size(self, name: str) -> int | None:
        def action() -> int:
            with self._ask(name, method="HEAD") as answer:
                return int(answer.headers["Content-Length"])

        try:
            return self._try(name, action)
        except FileNotFoundError:
            return None

    def names(self, prefix: str = "") -> list[str]:
        raise self._only_read()

    def write(self, name: str, data: bytes | str) -> None:
        raise self._only_read()

    def put(self, local: Path, name: str) -> None:
        raise self._only_read()

    def link(self, source: str, target: str) -> None:
        raise self._only_read()

    def delete(self, name: str) -> None:
        raise self._only_read()

    def sweep(self) -> list[str]:
        raise self._only_read()

    def _only_read(self) -> UserError:
        return UserError(
            f"{redact(self.url)} is behind a web server, from which datasets can only be read: use "
            "a folder, s3:// or gs:// for what is written"
        )

    def _address(self, name: str) -> str:
        return f"{self._url}/{urllib.parse.quote(check_name(name))}"

    def _ask(self, name: str, start: int = 0, method: str = "GET") -> Any:
        """The answer to a request, from a byte on if the server can do that."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(self._address(name), headers=headers, method=method)
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)

    def _try(self, name: str, action: Callable[[], Result]) -> Result:
        """Do something, with retries as long as they may help.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: every attempt failed.
        """
        what, last = redact(self._address(name)), ""
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except urllib.error.HTTPError as error:
                if error.code in (404, 410):
                    raise FileNotFoundError(errno.ENOENT, "there is no such file", what) from error
                if error.code not in PASSING:
                    raise StoreError(f"{what} could not be read: {error}") from error
                last = str(error)
            except (OSError, http.client.HTTPException) as error:
                last = str(error) or type(error).__name__
            if attempt + 1 < ATTEMPTS:
                self._sleep(FIRST_WAIT_S * 2**attempt)
        raise StoreError(f"{what} could not be read in {ATTEMPTS} attempts: {redact(last)}")


def _whole(answer: Any) -> bytes:
    """All of an answer.

    Raises:
        OSError: it ended early.
    """
    content: bytes = answer.read()
    length = answer.headers["Content-Length"]
    if length is not None and len(content) != int(length):
        raise OSError(f"{len(content)} of {length} bytes came")
    return content


class _WebFile(RangedFile):
    """Reads a file onward over one connection, which is opened again where the reader jumps."""

    def __init__(self, store: WebStore, name: str, size: int) -> None:
        super().__init__(size)
        self._store, self._name = store, name
        self._answer: Any = None

    def _jumps(self) -> None:
        self._hang_up()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._size - self._position)]
        if not len(view):
            return 0
        count = self._store._try(self._name, lambda: self._take(view))
        self._position += count
        return count

    def _take(self, view: memoryview) -> int:
        try:
            if self._answer is None:
                self._answer = self._store._ask(self._name, self._position)
                if self._position and self._answer.status != http.HTTPStatus.PARTIAL_CONTENT:
                    # The server begins at the beginning all the same.
                    _skip(self._answer, self._position)
            count: int = self._answer.readinto(view)
            if not count:
                raise OSError(f"the answer ended at byte {self._position} of {self._size}")
        except BaseException:
            self._hang_up()
            raise
        return count

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        self._hang_up()
        super().close()


def _skip(answer: Any, count: int) -> None:
    while count:
        block = answer.read(min(count, BUFFER))
        if not block:
            raise OSError(f"the answer ended {count} bytes before the place that was asked for")
        count -= len(block)
