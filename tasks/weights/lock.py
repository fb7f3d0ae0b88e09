"""What is known of the weights in a folder: `weights.lock.json`, and who may write there."""

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
    """One process at a time; the lock dies with its holder.

    Raises:
        ModelFileError: the folder cannot be made or written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = file_lock(path)
        lock.acquire()
    except OSError as problem:
        raise ModelFileError(
            f"weights cannot be put into {path.parent} ({problem.strerror or problem}): make it a "
            "folder that can be written to, or give another one as --folder or WEIGHTS_DIR"
        ) from problem
    try:
        yield
    finally:
        lock.release()


def can_lock(folder: Path, path: Path) -> bool:
    """Whether a file of the folder can be locked and recorded by whoever asks."""
    locks = [each for each in (lock_of(path), folder / ".lock") if each.exists()]
    return all(os.access(each, os.W_OK) for each in (folder, path.parent, *locks))


def lock_of(path: Path) -> Path:
    """What is locked while a file is fetched or verified."""
    return path.with_name(path.name + ".lock")


def recorded(folder: Path, name: str) -> dict[str, Any]:
    """What was recorded of a file: file, sha256, size (bytes), mtime_ns. Empty: nothing.

    Raises:
        ModelFileError: `weights.lock.json` cannot be read as what `record` writes.
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
        raise ModelFileError(_damaged(path, "it holds no JSON object"))
    for name, row in content.items():
        if not isinstance(row, dict) or not isinstance(row.get("sha256"), str):
            raise ModelFileError(_damaged(path, f"what it says of {name!r} has no sha256"))
    return content


def _damaged(path: Path, reason: str) -> str:
    return (
        f"{path}, which records the sha256 of weights, cannot be read ({reason}): delete it if "
        "you trust the files beside it; they are recorded anew at their next use"
    )


def record(folder: Path, name: str, file: str, digest: str, state: os.stat_result) -> None:
    """Remember the sha256 of a file that is in its place, or is about to be moved there.

    Args:
        folder: of the weights.
        name: of the weight.
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
