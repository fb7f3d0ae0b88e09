"""A record of what has been done: one small JSON file per key, below a prefix of a store."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from datasets.store.local import LocalStore
from datasets.store.protocol import Store

READERS = 32
"""Entries read at once: an object store answers one after tens of milliseconds, and many at once
as fast as one."""


def config_digest(value: Any) -> str:
    """sha256 of a JSON value in canonical form, in hex.

    Raises:
        TypeError: the value holds something that JSON cannot represent.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


Value = TypeVar("Value", bound=Mapping[str, Any])
"""A JSON object."""


class Manifest(Generic[Value]):
    """Finished work by key, one file each.

    Args:
        store: the store of the files; a local folder is created by the first `put`.
        prefix: the folder in the store; empty for the whole store.
    """

    def __init__(self, store: Store | Path, prefix: str = "") -> None:
        self.store: Store = LocalStore(store) if isinstance(store, Path) else store
        self.prefix = prefix.rstrip("/")

    def _name(self, key: str) -> str:
        name = f"{hashlib.sha1(key.encode('utf-8')).hexdigest()}.json"
        return f"{self.prefix}/{name}" if self.prefix else name

    def get(self, key: str) -> Value | None:
        """The value stored for a key; None if there is none, or the file is not ours."""
        entry = self._read(self._name(key))
        return entry["value"] if entry and entry["key"] == key else None

    def put(self, key: str, value: Value) -> None:
        """Store `value`, a JSON object."""
        self.store.write(self._name(key), json.dumps({"key": key, "value": value}, indent=0))

    def items(self) -> Iterator[tuple[str, Value]]:
        """All keys, sorted, with their values."""
        above = f"{self.prefix}/" if self.prefix else ""
        names = [
            name
            for name in self.store.names(self.prefix)
            if name.endswith(".json") and "/" not in name.removeprefix(above)
        ]
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(self._read, names))
        entries = [(entry["key"], entry["value"]) for entry in found if entry]
        yield from sorted(entries, key=lambda entry: entry[0])

    def keys(self) -> Iterator[str]:
        """All keys, sorted."""
        yield from (key for key, _ in self.items())

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            entry = json.loads(self.store.read(name))
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(entry, dict) or set(entry) != {"key", "value"}:
            return None
        return entry
