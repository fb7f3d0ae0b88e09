"""The store in a folder on this machine."""

import os
from pathlib import Path
from typing import BinaryIO

from datasets.store.atomic import (
    TEMPORARY,
    link_atomic,
    move_atomic,
    sweep,
    sync_folder,
    write_atomic,
)
from datasets.store.protocol import check_name, check_prefix


class LocalStore:
    """A local folder; created by the first write.

    Args:
        folder: any path; stored as an absolute one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(folder))

    def __repr__(self) -> str:
        return f"LocalStore({self.url!r})"

    @property
    def url(self) -> str:
        return str(self.folder)

    def path(self, name: str) -> Path:
        """The path of a file."""
        return self.folder / check_name(name)

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
            for path in (self.folder / check_prefix(prefix)).rglob("*")
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
