"""Object storage through fsspec: every operation is retried as long as that may help.

An object store shows an object once its upload is complete, so nobody sees half of one. What
was written is compared with what the service reports: size, and MD5 if it has one.
"""

import errno
import io
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from datasets.errors import StoreError, UserError
from datasets.store.drivers import DRIVERS, NO_CREDENTIALS, code, is_lasting, is_passing, is_refused
from datasets.store.protocol import check_name, check_prefix
from datasets.store.ranges import RangedFile

ATTEMPTS = 5
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
BUFFER = 4 << 20
"""Bytes fetched at once for a file that is read in small steps."""
SETTINGS = ("AWS_", "GOOGLE_", "STORAGE_")
"""Prefixes of environment variables that the services' clients read."""

_CONNECTIONS: dict[tuple[Any, ...], Any] = {}

Result = TypeVar("Result")


class RemoteStore:
    """Objects below a prefix of a bucket.

    Each process opens its own connections when it first needs them, and threads share them.

    Args:
        url: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `memory://PREFIX`.
        options: arguments for the class of s3fs or gcsfs, overriding those of `drivers`.
        attempts: number of attempts of an operation.
        sleep: function that waits between attempts, for seconds; picklable.

    Raises:
        ValueError: the URL is none of these.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        scheme, _, rest = url.partition("://")
        self.scheme = scheme.lower()
        root = check_prefix(rest.strip("/"))
        if self.scheme not in DRIVERS or not (root or self.scheme == "memory"):
            raise ValueError(f"{url!r} is not the URL of a place in object storage")
        self._url = f"{self.scheme}://{root}"
        self._root = f"/{root}".rstrip("/") if self.scheme == "memory" else root
        self._options = dict(options or {})
        self._attempts = attempts
        self._sleep = sleep
        self._files: tuple[int, Any] | None = None

    def __repr__(self) -> str:
        return f"RemoteStore({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": None}

    @property
    def url(self) -> str:
        return self._url

    @property
    def bucket(self) -> str:
        """The first part of the path."""
        return self._root.split("/")[0]

    def check(self) -> None:
        """Check that the bucket exists and may be read.

        Raises:
            UserError: it does not or may not.
        """
        try:
            self._try("", "opened", lambda files: self._driver.probe(files, self._root))
        except FileNotFoundError:
            raise self._no_bucket() from None
        except OSError as error:
            raise UserError(f"{error}; check the URL and the network") from error

    def read(self, name: str) -> bytes:
        path = self._path(name)
        return bytes(self._try(name, "read", lambda files: files.cat_file(path)))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file, the end excluded; both are in the file."""
        path = self._path(name)

        def action(files: Any) -> bytes:
            data = bytes(files.cat_file(path, start=start, end=end))
            if len(data) != end - start:
                raise OSError(f"{len(data)} bytes came instead of {end - start}")
            return data

        return self._try(name, "read", action)

    def write(self, name: str, data: bytes | str) -> None:
        path = self._path(name)
        content = data.encode("utf-8") if isinstance(data, str) else data
        self._store(name, content, lambda files: self._driver.write(files, path, content))

    def put(self, local: Path, name: str) -> None:
        path = self._path(name)
        local.stat()  # So that FileNotFoundError is never about the remote side.
        self._store(name, local, lambda files: self._driver.put(files, local, path))
        local.unlink()

    def _store(self, name: str, content: bytes | Path, send: Callable[[Any], bool]) -> None:
        path = self._path(name)

        def action(files: Any) -> None:
            try:
                proven = send(files)
                if not proven and not self._driver.intact(files, path, content):
                    raise OSError("what arrived differs from what was sent")
            except FileNotFoundError as error:
                # A multipart upload that is completed or aborted is "not found" when asked again.
                if code(error) == "NoSuchBucket":
                    raise
                raise OSError(f"the upload was lost: {error}") from error

        self._try(name, "written", action)

    def link(self, source: str, target: str) -> None:
        from_path, to_path = self._path(source), self._path(target)

        def action(files: Any) -> None:
            size = int(files.info(from_path)["size"])
            if source == target:
                return
            self._driver.copy(files, from_path, to_path, size)
            if int(files.info(to_path)["size"]) != size:
                raise OSError("the copy has another size")

        self._try(source, f"copied to {target}", action)

    def open(self, name: str) -> BinaryIO:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", f"{self.url}/{name}")
        return cast(BinaryIO, io.BufferedReader(_RemoteFile(self, name, size), BUFFER))

    def size(self, name: str) -> int | None:
        path = self._path(name)
        try:
            info = self._try(name, "looked up", lambda files: files.info(path))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def names(self, prefix: str = "") -> list[str]:
        folder = "/".join(part for part in (self._root, check_prefix(prefix)) if part)
        above = f"{self._root}/"
        found = self._try(prefix, "listed", lambda files: files.find(folder))
        # A service's own console creates folders as empty objects whose names end in a slash.
        return sorted(
            path.removeprefix(above)
            for path in found
            if path.startswith(f"{folder}/") and not path.endswith("/")
        )

    def delete(self, name: str) -> None:
        path = self._path(name)
        try:
            self._try(name, "deleted", lambda files: files.rm_file(path))
        except FileNotFoundError:
            return

    def sweep(self) -> list[str]:
        removed = self._try("", "swept", lambda files: self._driver.sweep(files, self._root))
        return [path.removeprefix(f"{self._root}/") for path in removed]

    @property
    def _driver(self) -> Any:
        return DRIVERS[self.scheme]

    def _path(self, name: str) -> str:
        return f"{self._root}/{check_name(name)}"

    def _connect(self) -> Any:
        """The file system of this process; those of s3fs and gcsfs do not survive a fork."""
        if self._files is None or self._files[0] != os.getpid():
            self._files = (os.getpid(), _connect(self.scheme, self._options))
        return self._files[1]

    def _try(self, name: str, done: str, action: Callable[[Any], Result]) -> Result:
        """Do something, with retries as long as they may help.

        Raises:
            FileNotFoundError: the service knows no such object.
            UserError: bucket or credentials are missing or insufficient.
            OSError: every attempt failed.
        """
        what = f"{self.url}/{name}".rstrip("/")
        for attempt in range(self._attempts):
            try:
                return action(self._connect())
            except Exception as error:
                self._complain(what, done, error)
                if is_lasting(error):
                    raise StoreError(f"{what} could not be {done}: {_line(error)}") from error
                if not is_passing(error):
                    raise
                last = error
            if attempt + 1 < self._attempts:
                wait = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S)
                # Many workers that were told to slow down should not return all at once.
                self._sleep(wait * random.uniform(0.5, 1.0))
        raise StoreError(
            f"{what} could not be {done} in {self._attempts} attempts: {_line(last)}"
        ) from last

    def _complain(self, what: str, done: str, error: Exception) -> None:
        """Raise an error that the caller or the user can handle."""
        if code(error) == "NoSuchBucket":
            raise self._no_bucket() from error
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, "there is no such file", what) from error
        if type(error).__name__ in NO_CREDENTIALS:
            raise UserError(
                f"{what} could not be {done} without credentials: {self._driver.credentials}"
            ) from error
        if is_refused(error):
            raise UserError(
                f"{what} could not be {done} with these credentials ({_line(error)}): "
                f"{self._driver.credentials} of someone who may"
            ) from error

    def _no_bucket(self) -> UserError:
        return UserError(
            f"there is no bucket {self.bucket} for {self.url}: create it, or correct the URL"
        )


def _connect(scheme: str, options: Mapping[str, Any]) -> Any:
    """This process's file system for these options and this environment.

    Creating one of s3fs's takes a second, too long for each copy of a store that comes with a task.
    """
    settings = sorted(each for each in os.environ.items() if each[0].startswith(SETTINGS))
    key = (os.getpid(), scheme, repr(sorted(options.items())), tuple(settings))
    if key not in _CONNECTIONS:
        _CONNECTIONS.setdefault(key, DRIVERS[scheme].connect(**options))
    return _CONNECTIONS[key]


class _RemoteFile(RangedFile):
    """Reads ranges of an object as a file."""

    def __init__(self, store: RemoteStore, name: str, size: int) -> None:
        super().__init__(size)
        self._store, self._name = store, name

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        end = min(self._position + len(view), self._size)
        if end <= self._position:
            return 0
        data = self._store.read_range(self._name, self._position, end)
        view[: len(data)] = data
        self._position = end
        return len(data)


def open_remote(url: str) -> RemoteStore:
    """The store at an `s3://`, `gs://` or `memory://` URL, after checking that it exists.

    Raises:
        UserError: the URL is malformed, the driver is not installed, there is no such bucket or
            it cannot be reached, or credentials are missing or insufficient.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in DRIVERS:
        raise UserError(
            f"{url} has the scheme {scheme}, which is unknown: use a local folder, or a "
            "URL with file://, s3:// or gs://"
        )
    try:
        store = RemoteStore(url)
    except ValueError:
        raise UserError(f"{url} is not a place in a bucket: use {scheme}://BUCKET/FOLDER") from None
    try:
        store.check()
    except ImportError as error:
        package = DRIVERS[scheme].package
        raise UserError(f"{url} needs the package {package}: pip install {package}") from error
    return store


def _line(error: Exception) -> str:
    """An exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return " ".join(error.strerror.split())
    if isinstance(error, TimeoutError) and not str(error):
        return "not finished within its time limit"
    return " ".join(str(error).split()) or type(error).__name__
