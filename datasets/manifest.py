"""Files that are either whole or not there, and the memory of what has been done.

A `Manifest` is a folder with one small JSON file per key. Each is written to a temporary
file, synced and renamed, so that killing a process at any moment leaves old or new content.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 1 << 20


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that readers and crashes see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    content = data.encode("utf-8") if isinstance(data, str) else data
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def content_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def config_digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form, in hex.

    Raises:
        TypeError: the value holds something that JSON has no form for.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Manifest:
    """Finished work by key, one file each.

    Args:
        folder: where the files lie; made at the first `put`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha1(key.encode('utf-8')).hexdigest()}.json"

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put for a key; None when nothing was, or the file is not ours."""
        entry = _read(self._path(key))
        return entry["value"] if entry and entry["key"] == key else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Remember `value`, a JSON object."""
        write_atomic(self._path(key), json.dumps({"key": key, "value": value}, indent=0))

    def keys(self) -> Iterator[str]:
        """All keys, sorted."""
        found = (_read(path) for path in self.folder.glob("*.json"))
        yield from sorted(entry["key"] for entry in found if entry)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(entry, dict) or set(entry) != {"key", "value"}:
        return None
    return entry
