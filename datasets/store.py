"""Where the files of a dataset live: a local folder or object storage, behind one protocol.

Names are relative paths with forward slashes below the store's URL. Every write is whole or
not there, and durable when the call returns. `open_store` makes the right store for a URL.
"""

import os
import re
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote

from datasets.atomic import TEMPORARY, link_atomic, move_atomic, sweep, sync_folder, write_atomic
from datasets.errors import UserError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


class Store(Protocol):
    """A folder of files, here or elsewhere. Picklable, so that it can travel to workers."""

    @property
    def url(self) -> str:
        """What the user gave: an absolute path, or a URL without a slash at its end."""

    def read(self, name: str) -> bytes:
        """All bytes of a file.

        Raises:
            FileNotFoundError: there is none.
        """

    def write(self, name: str, data: bytes | str) -> None:
        """Make or replace a file; text is written as UTF-8."""

    def put(self, local: Path, name: str) -> None:
        """Let a finished local file become `name`; afterwards `local` is gone."""

    def link(self, source: str, target: str) -> None:
        """Give the content of `source` a second name; replaces `target`.

        Raises:
            FileNotFoundError: there is no `source`.
        """

    def open(self, name: str) -> BinaryIO:
        """A file to read from, seekable; only what is read is fetched.

        Raises:
            FileNotFoundError: there is none.
        """

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when there is none."""

    def names(self, prefix: str = "") -> list[str]:
        """Names of all files below a folder, at any depth, sorted; unfinished ones left out."""

    def delete(self, name: str) -> None:
        """Remove a file, if there is one."""

    def sweep(self) -> list[str]:
        """Remove what killed writers left unfinished; returns what was removed."""


def checked(name: str) -> str:
    """The name of a file in a store.

    Raises:
        ValueError: it is empty, absolute, or has empty, `.` or `..` parts.
    """
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise ValueError(f"{name!r} is no relative name of a file: give one like shards/a.tar")
    return name


def checked_prefix(prefix: str) -> str:
    """The name of a folder in a store, without a slash at its end; empty for the whole store."""
    return checked(prefix.rstrip("/")) if prefix else ""


class LocalStore:
    """A local folder; made at the first write.

    Args:
        folder: any path; kept as an absolute one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(folder))

    def __repr__(self) -> str:
        return f"LocalStore({self.url!r})"

    @property
    def url(self) -> str:
        return str(self.folder)

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.folder / checked(name)

    def read(self, name: str) -> bytes:
        return self.path(name).read_bytes()

    def write(self, name: str, data: bytes | str) -> None:
        write_atomic(self.path(name), data)

    def put(self, local: Path, name: str) -> None:
        move_atomic(local, self.path(name))

    def link(self, source: str, target: str) -> None:
        link_atomic(self.path(source), self.path(target))

    def open(self, name: str) -> BinaryIO:
        return self.path(name).open("rb")

    def size(self, name: str) -> int | None:
        path = self.path(name)
        return path.stat().st_size if path.is_file() else None

    def names(self, prefix: str = "") -> list[str]:
        return sorted(
            path.relative_to(self.folder).as_posix()
            for path in (self.folder / checked_prefix(prefix)).rglob("*")
            if path.is_file() and not TEMPORARY.fullmatch(path.name)
        )

    def delete(self, name: str) -> None:
        path = self.path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            return
        sync_folder(path.parent)

    def sweep(self) -> list[str]:
        return [path.relative_to(self.folder).as_posix() for path in sweep(self.folder)]


def open_store(url: str | Path) -> Store:
    """The store at a local path or a `file://`, `s3://`, `gs://` or `memory://` URL.

    Raises:
        UserError: the scheme is unknown, its driver is not installed, the path is a file, or
            the bucket is missing, cannot be reached or may not be read.
    """
    match = SCHEME.fullmatch(str(url)) if isinstance(url, str) else None
    if match is None or match[1].lower() == "file":
        folder = Path(unquote(match[2]) if match else os.path.expanduser(url))
        if match and not folder.is_absolute():
            raise UserError(f"{url} names a host: write file:///PATH with three slashes")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: give a folder")
        return LocalStore(folder)
    from datasets.store_remote import open_remote

    return open_remote(str(url))
