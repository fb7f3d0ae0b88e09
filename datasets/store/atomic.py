"""Files that are either complete or do not exist.

New content goes to a temporary file next to its target, is synced and renamed, so that
killing a process at any moment leaves old or new content. A writer holds a lock on its
temporary file, so that `sweep` can tell those of killed writers from those still being written.
"""

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

BLOCK = 1 << 20
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""Names of unfinished files."""


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see all of it or nothing, even after a crash."""
    content = data.encode("utf-8") if isinstance(data, str) else data
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when the block ends without an exception."""
    make_folder(path.parent)
    temporary, file = _lock(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def move_atomic(source: Path, target: Path) -> None:
    """Rename a finished file, or copy and remove it if the target is on another file system."""
    make_folder(target.parent)
    if target.exists() and source.samefile(target):
        # A rename between two names of one file does nothing and leaves both.
        if source.parent.resolve() / source.name != target.parent.resolve() / target.name:
            source.unlink()
        return
    with source.open("rb") as file:
        os.fsync(file.fileno())
        try:
            source.replace(target)
        except OSError as error:
            if os.stat(source).st_dev == os.stat(target.parent).st_dev:
                raise error
            with replacing(target) as copy:
                shutil.copyfileobj(file, copy, BLOCK)
            source.unlink()
    sync_folder(target.parent)


def link_atomic(source: Path, target: Path) -> None:
    """Make `target` a second name of `source`, or a copy if hard links are not possible.

    Raises:
        FileNotFoundError: there is no `source`.
    """
    make_folder(target.parent)
    while True:
        temporary = unfinished_name(target)
        try:
            os.link(source, temporary)
            temporary.replace(target)
        except FileNotFoundError:
            # A sweep cannot know that this link is in use; it may have removed it.
            if not source.is_file():
                raise
            continue
        except OSError:
            with source.open("rb") as file, replacing(target) as copy:
                shutil.copyfileobj(file, copy, BLOCK)
            return
        finally:
            # It stays if target and source were already the same file.
            temporary.unlink(missing_ok=True)
        break
    sync_folder(target.parent)


def sweep(folder: Path) -> list[Path]:
    """Remove what killed writers left anywhere below `folder`; returns the removed files.

    Files of running writers stay, and so do all files if the file system has no locks.
    """
    removed = []
    for path in sorted(folder.rglob(".*.tmp")):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            try:
                with path.open("r+b") as file:
                    if not lock_descriptor(file.fileno(), blocking=False):
                        continue
                    path.unlink()
            except OSError:
                continue
            removed.append(path)
    return removed


def unfinished_name(path: Path) -> Path:
    """A new temporary name next to `path`, which `sweep` recognises."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _lock(path: Path) -> tuple[Path, BinaryIO]:
    """A temporary file of ours for `path`, locked before a sweep could take it away."""
    while True:
        temporary = unfinished_name(path)
        file = temporary.open("xb")
        try:
            ours = lock_descriptor(file.fileno(), blocking=False)
        except OSError:
            return temporary, file  # No locks on this file system, so no sweep either.
        if ours and temporary.exists():
            return temporary, file
        file.close()


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def content_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
