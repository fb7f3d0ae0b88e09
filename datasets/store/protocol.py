"""The operations of a store, and the names that it accepts."""

from pathlib import Path
from typing import BinaryIO, Protocol


class Store(Protocol):
    """A folder of files, local or remote. Picklable, so that it can be sent to workers."""

    @property
    def url(self) -> str:
        """The user's location: an absolute path, or a URL without a slash at its end."""

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """

    def write(self, name: str, data: bytes | str) -> None:
        """Create or replace a file; text is written as UTF-8."""

    def put(self, local: Path, name: str) -> None:
        """Move a finished local file to `name`; afterwards `local` is gone."""

    def link(self, source: str, target: str) -> None:
        """Give the content of `source` a second name; replaces `target`.

        Raises:
            FileNotFoundError: there is no `source`.
        """

    def open(self, name: str) -> BinaryIO:
        """A file to read from, seekable; only what is read is fetched.

        Raises:
            FileNotFoundError: there is no such file.
        """

    def size(self, name: str) -> int | None:
        """Size of a file in bytes; None if there is no such file."""

    def names(self, prefix: str = "") -> list[str]:
        """Names of all files below a folder, at any depth, sorted; unfinished ones left out."""

    def delete(self, name: str) -> None:
        """Remove a file, if there is one."""

    def sweep(self) -> list[str]:
        """Remove what killed writers left unfinished; returns the removed names."""


def check_name(name: str) -> str:
    """The name of a file in a store.

    Raises:
        ValueError: it is empty, absolute, or has empty, `.` or `..` parts.
    """
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise ValueError(f"{name!r} is not a relative name of a file: use one like shards/a.tar")
    return name


def check_prefix(prefix: str) -> str:
    """The name of a folder in a store, without a slash at its end; empty for the whole store."""
    return check_name(prefix.rstrip("/")) if prefix else ""
