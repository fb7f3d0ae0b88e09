"""Writing shards sample by sample: every byte once, and the same bytes every time."""

import hashlib
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, cast

from datasets.store.atomic import unfinished_name
from datasets.store.protocol import Store

BLOCK = tarfile.BLOCKSIZE
OUR_NAME = re.compile(r".+-\d{6}(-\d{2})?-[0-9a-f]{8}\.tar|clips-[0-9a-f]{8}\.parquet")
"""Names of finished shards and of tables of clips; other files in their folder are not ours to
remove."""
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


WHOLE = ""
"""Stands for all members of a sample in its `Places`."""
Places = Mapping[str, Sequence[int]]
"""Extension -> offset of a member's content in its shard, and its size, bytes; `WHOLE` -> the same
of the sample with all headers."""


class ShardRecord(TypedDict):
    """A `Shard` as stored in a journal."""

    info: ShardEntry
    keys: list[str]
    places: list[dict[str, list[int]]]


@dataclass(frozen=True)
class Shard:
    """A finished shard and its content."""

    info: ShardInfo
    keys: tuple[str, ...]
    """Keys of its samples, in their order."""
    places: tuple[Places, ...]
    """Where their members are, in the same order."""

    def as_record(self) -> ShardRecord:
        """The shard as JSON data."""
        places = [{ext: [*place] for ext, place in each.items()} for each in self.places]
        info = cast(ShardEntry, asdict(self.info))
        return {"info": info, "keys": [*self.keys], "places": places}


@dataclass
class _Tar:
    """A shard being written."""

    path: Path
    file: BinaryIO
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    keys: list[str] = field(default_factory=list)
    places: list[dict[str, tuple[int, int]]] = field(default_factory=list)

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
        parts = {ext: _member(f"{key}.{ext}", members[ext]) for ext in sorted(members)}
        weight = sum(len(part) for three in parts.values() for part in three)
        tar = self._tar(split, weight)
        places = {WHOLE: (tar.size, weight)}
        for ext, (header, content, padding) in parts.items():
            places[ext] = (tar.size + len(header), len(content))
            for part in (header, content, padding):
                tar.write(part)
        tar.keys.append(key)
        tar.places.append(places)
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
            del last.keys[samples:], last.places[samples:]

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
                made.append(Shard(info, tuple(tar.keys), tuple(tar.places)))
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
