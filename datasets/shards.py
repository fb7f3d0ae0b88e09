"""WebDataset shards: plain tar files whose bytes depend on their samples alone.

A shard holds samples one after another, each as members `key.ext`, sorted, with no times
and no owners; its name ends in its content's digest. So a new version never writes over a
shard of the old one, and who reads the old one is not disturbed until `index.json` is
replaced. The index names the shards with counts, sizes and sha256, and its digest names the
version of the dataset. Plain `webdataset` reads the shards.
"""

import hashlib
import json
import os
import re
import tarfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from datasets.errors import UserError
from datasets.store.manifest import config_digest
from datasets.store.open import open_store
from datasets.store.protocol import Store

INDEX = "index.json"
FOLDER = "shards"
VERSION = 1
BLOCK = tarfile.BLOCKSIZE
OUR_NAME = re.compile(r".+-\d{6}(-\d{2})?-[0-9a-f]{8}\.tar")
"""Finished shards; other files in their folder are not ours to remove."""
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


@dataclass(frozen=True)
class Shard:
    """A finished shard and what is in it."""

    info: ShardInfo
    keys: tuple[str, ...]
    """Of its samples, in their order."""


@dataclass
class _Tar:
    """A shard that is being written."""

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
"""For each split: how many shards there were; size, digest and samples of the last one."""


class ShardWriter:
    """Shards of one group of sources, written sample by sample; every byte is written once.

    Args:
        scratch: where unfinished shards lie; best on the disk where they will stay.
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
            ValueError: the key is empty, was there before, or has a dot or a slash.
        """
        if key in self._keys or not key or "." in key or "/" in key:
            raise ValueError(f"the key {key!r} is empty, twice there, or has a dot or slash")
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
            path = self.scratch / f".{split}-{self.group:06d}.{uuid.uuid4().hex[:8]}.tmp"
            tars.append(_Tar(path, path.open("w+b")))
        return tars[-1]

    def mark(self) -> Mark:
        """Where the writer stands, for `rollback`."""
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
    # PAX is plain USTAR but for names of more than 100 bytes.
    header = info.tobuf(tarfile.PAX_FORMAT)
    return header, content, b"\0" * (-len(content) % BLOCK)


def read_samples(store: Store, name: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, extension -> content) of every sample of a shard, in its order.

    Raises:
        UserError: the shard is missing or damaged.
    """
    key, members = "", dict[str, bytes]()
    try:
        with store.open(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                found, _, extension = member.name.partition(".")
                if found != key and members:
                    yield key, members
                    members = {}
                content = tar.extractfile(member)
                key, members[extension] = found, content.read() if content else b""
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"the shard {store.url}/{name} cannot be read ({error}): refresh the dataset again"
        ) from error
    if members:
        yield key, members


def make_index(shards: Sequence[ShardInfo], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The index of a dataset. Its `digest` changes exactly when shards or `meta` do.

    Args:
        shards: all shards of this version.
        meta: what else belongs in the index, such as `resolution`.
    """
    entries = [asdict(shard) for shard in sorted(shards, key=lambda shard: shard.name)]
    splits = sorted({shard.split for shard in shards})
    counts = {
        split: sum(shard.samples for shard in shards if shard.split == split) for split in splits
    }
    body = {**meta, "version": VERSION, "counts": counts, "shards": entries}
    return {**body, "digest": config_digest(body)}


def publish_index(store: Store, index: Mapping[str, Any], keep: Sequence[str] = ()) -> None:
    """Make an index the one of the dataset in a store, then remove shards that it replaces.

    Args:
        store: of the dataset.
        index: of the new version.
        keep: names of shards that stay for those who read the version before.
    """
    store.write(INDEX, json.dumps(index, indent=1, sort_keys=True) + "\n")
    remove_replaced(store, index, keep)


def remove_replaced(store: Store, index: Mapping[str, Any], keep: Sequence[str] = ()) -> None:
    """Remove shards of ours that neither the published index nor `keep` names."""
    names = [*(shard["name"] for shard in index["shards"]), *keep]
    current = {f"{FOLDER}/{name}" for name in names}
    for name in store.names(FOLDER):
        if name not in current and OUR_NAME.fullmatch(name.rpartition("/")[2]):
            store.delete(name)


def read_index(dataset: Path | str) -> dict[str, Any]:
    """The index of a dataset in a folder or in object storage.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    store = open_store(dataset)
    try:
        index = json.loads(store.read(INDEX))
    except FileNotFoundError:
        raise UserError(
            f"there is no dataset in {dataset}: {INDEX} is missing; make one with "
            "python -m flows.refresh_dataset"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{dataset}/{INDEX} cannot be read: {error}") from error
    if not isinstance(index, dict) or index.get("version") != VERSION or "digest" not in index:
        raise UserError(
            f"{dataset}/{INDEX} is no dataset index of version {VERSION}: refresh the dataset"
        )
    return index


def check_crop(dataset: Path | str, index: Mapping[str, Any], wanted: str) -> None:
    """Whether the faces of a dataset are aligned as somebody needs them.

    Args:
        dataset: where it is.
        index: its index.
        wanted: name of the alignment, such as `datasets.faces.alignment.CROP`.

    Raises:
        UserError: they are not.
    """
    found = index.get("crop")
    if found is None:
        raise UserError(
            f"the dataset {dataset} was made with the larger crop of before, from which the chin "
            "hangs out of the mask: refresh it with this release, which ingests its files anew"
        )
    if found != wanted:
        raise UserError(
            f"the faces of the dataset {dataset} are aligned as {found!r}, the model is for "
            f"{wanted!r}: refresh the dataset with that crop, or use a model of {found!r}"
        )


def verify(dataset: Path | str) -> list[str]:
    """Names of shards that are missing or differ from the index, empty when all is well."""
    store = open_store(dataset)
    bad = []
    for entry in read_index(dataset)["shards"]:
        try:
            with store.open(f"{FOLDER}/{entry['name']}") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]  # type: ignore[arg-type]
        except FileNotFoundError:
            same = False
        if not same:
            bad.append(entry["name"])
    return bad
