"""Writing shards sample by sample: every byte once, and the same bytes every time."""

import hashlib
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from datasets.store.atomic import unfinished_name
from datasets.store.protocol import Store

BLOCK = tarfile.BLOCKSIZE
OUR_NAME = re.compile(r".+-\d{6}(-\d{2})?-[0-9a-f]{8}\.tar")
"""Names of finished shards; other files in their folder are not ours to remove."""
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard."""

    name: str
    """File name below `shards/`."""
    split: str
    """`train` or `test`; the part of the name before the numbers."""
    samples: int
    bytes: int
    sha256: str


class ShardEntry(TypedDict):
    """A `ShardInfo` as stored in an index."""

    name: str
    split: str
    samples: int
    bytes: int
    sha256: str


class ShardRecord(TypedDict):
    """A `Shard` as stored in a journal."""

    info: ShardEntry
    keys: list[str]


@dataclass(frozen=True)
class Shard:
    """A finished shard and its content."""

    info: ShardInfo
    keys: tuple[str, ...]
    """Keys of its samples, in their order."""


@dataclass
class _Tar:
    """A shard being written."""

    path: Path
    file: BinaryIO
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    keys: list[str] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)

    def discard(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


Mark = Mapping[str, tuple[int, int, Any, int]]
"""For each split the number of shards, and size, digest and samples of the last one."""


class ShardWriter:
    """Shards of one group of sources, written sample by sample; every byte is written once.

    Args:
        scratch: folder for unfinished shards; best on the disk where they will stay.
        group: the group's number, part of the shards' names.
        max_bytes: a shard is closed before the sample that would make it larger.
    """

    def __init__(self, scratch: Path, group: int, max_bytes: int = MAX_BYTES) -> None:
        self.scratch, self.group, self.max_bytes = scratch, group, max_bytes
        self._tars: dict[str, list[_Tar]] = {}
        self._keys: set[str] = set()

    def add(self, split: str, key: str, members: Mapping[str, bytes]) -> None:
        """Append a sample.

        Args:
            split: which of the group's shards it belongs in.
            key: its name, unique in the group.
            members: extension -> content.

        Raises:
            ValueError: the key is empty, was used before, or has a dot or a slash.
        """
        if key in self._keys or not key or "." in key or "/" in key:
            raise ValueError(f"the key {key!r} is empty, already used, or has a dot or slash")
        parts = [part for ext in sorted(members) for part in _member(f"{key}.{ext}", members[ext])]
        tar = self._tar(split, sum(map(len, parts)))
        for part in parts:
            tar.write(part)
        tar.keys.append(key)
        self._keys.add(key)

    def _tar(self, split: str, weight: int) -> _Tar:
        tars = self._tars.setdefault(split, [])
        if not tars or (tars[-1].keys and tars[-1].size + weight > self.max_bytes):
            self.scratch.mkdir(parents=True, exist_ok=True)
            path = unfinished_name(self.scratch / f"{split}-{self.group:06d}")
            tars.append(_Tar(path, path.open("w+b")))
        return tars[-1]

    def mark(self) -> Mark:
        """The writer's present position, for `rollback`."""
        return {
            split: (len(tars), tars[-1].size, tars[-1].digest.copy(), len(tars[-1].keys))
            for split, tars in self._tars.items()
        }

    def rollback(self, mark: Mark) -> None:
        """Drop all samples since a mark."""
        for split in list(self._tars):
            count, size, digest, samples = mark.get(split, (0, 0, None, 0))
            tars = self._tars[split]
            for tar in tars[count:]:
                self._keys -= set(tar.keys)
                tar.discard()
            del tars[count:]
            if not tars:
                del self._tars[split]
                continue
            last = tars[-1]
            last.file.seek(size)
            last.file.truncate()
            last.size, last.digest = size, digest.copy()
            self._keys -= set(last.keys[samples:])
            del last.keys[samples:]

    def finish(self, store: Store, prefix: str) -> list[Shard]:
        """Complete all shards and put them into a store as `prefix/SPLIT-GROUP-PART-DIGEST.tar`."""
        made = []
        for split, tars in sorted(self._tars.items()):
            for part, tar in enumerate(tars):
                tar.write(b"\0" * 2 * BLOCK)
                tar.write(b"\0" * (-tar.size % tarfile.RECORDSIZE))
                tar.file.flush()
                os.fsync(tar.file.fileno())
                tar.file.close()
                sha256 = tar.digest.hexdigest()
                name = f"{split}-{self.group:06d}-{part:02d}-{sha256[:8]}.tar"
                store.put(tar.path, f"{prefix}/{name}")
                info = ShardInfo(name, split, len(tar.keys), tar.size, sha256)
                made.append(Shard(info, tuple(tar.keys)))
        self._tars = {}
        return made

    def discard(self) -> None:
        """Drop everything that is not finished."""
        for tars in self._tars.values():
            for tar in tars:
                tar.discard()
        self._tars = {}


def _member(name: str, content: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, content and padding of a member."""
    info = tarfile.TarInfo(name)
    info.mode, info.size = 0o644, len(content)
    # PAX equals plain USTAR except for names of more than 100 bytes.
    header = info.tobuf(tarfile.PAX_FORMAT)
    return header, content, b"\0" * (-len(content) % BLOCK)
