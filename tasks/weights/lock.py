"""What is known about the weights in a folder: `weights.lock.json`, and a lock for writing."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets.store.atomic import write_atomic
from datasets.store.lock import file_lock
from models.files.errors import ModelFileError

LOCK_FILE = "weights.lock.json"


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let in one process at a time; the lock is released when its holder dies.

    Raises:
        ModelFileError: the folder cannot be created or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = file_lock(path)
        lock.acquire()
    except OSError as problem:
        raise ModelFileError(
            f"weights cannot be put into {path.parent} ({problem.strerror or problem}): make it a "
            "writable folder, or choose another one with --folder or WEIGHTS_DIR"
        ) from problem
    try:
        yield
    finally:
        lock.release()


def can_lock(folder: Path, path: Path) -> bool:
    """Whether this process can lock and record a file of the folder."""
    locks = [each for each in (lock_of(path), folder / ".lock") if each.exists()]
    return all(os.access(each, os.W_OK) for each in (folder, path.parent, *locks))


def lock_of(path: Path) -> Path:
    """The lock to hold while a file is fetched or verified."""
    return path.with_name(path.name + ".lock")


def recorded(folder: Path, name: str) -> dict[str, Any]:
    """The record of a file: file, sha256, size (bytes), mtime_ns; empty if there is none.

    Raises:
        ModelFileError: `weights.lock.json` is not what `record` writes.
    """
    return _read(folder).get(name, {})


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / LOCK_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as problem:
        raise ModelFileError(_damaged(path, str(problem))) from problem
    if not isinstance(content, dict):
        raise ModelFileError(_damaged(path, "it is not a JSON object"))
    for name, row in content.items():
        if not isinstance(row, dict) or not isinstance(row.get("sha256"), str):
            raise ModelFileError(_damaged(path, f"its entry for {name!r} has no sha256"))
    return content


def _damaged(path: Path, reason: str) -> str:
    return (
        f"{path}, which records the sha256 of weights, cannot be read ({reason}): delete it if "
        "you trust the files next to it; they are recorded again at their next use"
    )


def record(folder: Path, name: str, file: str, digest: str, state: os.stat_result) -> None:
    """Record the sha256 of a file that is in its place, or is about to be moved there.

    Args:
        folder: folder of the weights.
        name: name in the table.
        file: its path below the folder.
        digest: hex sha256.
        state: size and time of the file that was read.
    """
    with exclusive(folder / ".lock"):
        content = _read(folder)
        content[name] = {
            "file": file,
            "sha256": digest,
            "size": state.st_size,
            "mtime_ns": state.st_mtime_ns,
        }
        write_atomic(folder / LOCK_FILE, json.dumps(content, indent=1, sort_keys=True))
