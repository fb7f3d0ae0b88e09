"""WebDataset shards: plain tar files whose bytes depend on their samples alone.

A shard holds samples one after another, each as members `key.ext`, sorted, with no times
and no owners; its name ends in its content's digest. So a new version never writes over a
shard of the old one, and who reads the old one is not disturbed until `index.json` is
replaced. The index names the shards with counts, sizes and sha256, and its digest names the
version of the dataset. Plain `webdataset` reads the shards.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets.errors import UserError
from datasets.manifest import config_digest, content_digest, sync_folder, write_atomic

INDEX = "index.json"
FOLDER = "shards"
VERSION = 1
BLOCK = 512
OUR_NAME = re.compile(r".+-\d{6}-[0-9a-f]{8}\.tar|\..+-\d{6}\.tar\.tmp")
"""Finished and unfinished shards; other files in their folder are not ours to remove."""

Sample = tuple[str, Mapping[str, bytes | Path]]
"""Key, and for each extension the content or the file that holds it."""


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard."""

    name: str
    """File name below `shards/`."""
    split: str
    """`train` or `test`; the part of the name before the number."""
    samples: int
    bytes: int
    sha256: str


def write_shards(
    samples: Iterable[Sample],
    out_dir: Path,
    prefix: str,
    max_bytes: int = 256 << 20,
    max_samples: int = 10_000,
) -> list[ShardInfo]:
    """Pack samples, in the order of their keys, into `out_dir/PREFIX-000000-DIGEST.tar` etc.

    A shard is closed before the sample that would make it larger than `max_bytes` or fuller
    than `max_samples`. Content that is given as paths is never in memory whole.

    Raises:
        ValueError: two samples have the same key, or a key has a dot or a slash.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    finished: list[ShardInfo] = []
    group: list[Sample] = []
    size = 0
    previous = ""
    for key, members in sorted(samples, key=lambda sample: sample[0]):
        if key == previous or not key or "." in key or "/" in key:
            raise ValueError(f"the key {key!r} is empty, twice there, or has a dot or slash")
        previous = key
        weight = sum(_padded(_length(content)) + BLOCK for content in members.values())
        if group and (size + weight > max_bytes or len(group) == max_samples):
            finished.append(_write_shard(group, out_dir, prefix, len(finished)))
            group, size = [], 0
        group.append((key, members))
        size += weight
    if group:
        finished.append(_write_shard(group, out_dir, prefix, len(finished)))
    return finished


def _length(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _write_shard(group: list[Sample], out_dir: Path, prefix: str, number: int) -> ShardInfo:
    temporary = out_dir / f".{prefix}-{number:06d}.tar.tmp"
    try:
        with temporary.open("wb") as file:
            # PAX is plain USTAR but for names of more than 100 bytes.
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for key, members in group:
                    for extension in sorted(members):
                        _add(tar, f"{key}.{extension}", members[extension])
            file.flush()
            os.fsync(file.fileno())
        digest = content_digest(temporary)
        name = f"{prefix}-{number:06d}-{digest[:8]}.tar"
        size = temporary.stat().st_size
        temporary.replace(out_dir / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(out_dir)
    return ShardInfo(name, prefix, len(group), size, digest)


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    member = tarfile.TarInfo(name)
    member.mode = 0o644
    if isinstance(content, Path):
        with content.open("rb") as file:
            member.size = os.fstat(file.fileno()).st_size
            tar.addfile(member, file)
    else:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def write_index(out_dir: Path, shards: list[ShardInfo], meta: Mapping[str, Any]) -> str:
    """Publish a set of shards as the dataset in `out_dir`, then remove shards it replaces.

    Args:
        out_dir: the dataset's folder; shards lie in `out_dir/shards`.
        shards: all shards of this version.
        meta: what else belongs in the index, such as `resolution`.

    Returns:
        the digest of the dataset: it changes exactly when shards or `meta` do.
    """
    entries = [asdict(shard) for shard in sorted(shards, key=lambda shard: shard.name)]
    splits = sorted({shard.split for shard in shards})
    counts = {
        split: sum(shard.samples for shard in shards if shard.split == split) for split in splits
    }
    body = {**meta, "version": VERSION, "counts": counts, "shards": entries}
    digest = config_digest(body)
    text = json.dumps({**body, "digest": digest}, indent=1, sort_keys=True)
    write_atomic(out_dir / INDEX, text + "\n")
    current = {shard.name for shard in shards}
    for path in (out_dir / FOLDER).glob("*"):
        if path.name not in current and OUR_NAME.fullmatch(path.name):
            path.unlink()
    return digest


def read_index(dataset: Path) -> dict[str, Any]:
    """The index of a dataset.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    path = dataset / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"there is no dataset in {dataset}: {INDEX} is missing; make one with "
            "python -m flows.refresh_dataset"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(index, dict) or index.get("version") != VERSION or "digest" not in index:
        raise UserError(f"{path} is no dataset index of version {VERSION}: refresh the dataset")
    return index


def verify(dataset: Path) -> list[str]:
    """Names of shards that are missing or differ from the index, empty when all is well."""
    bad = []
    for entry in read_index(dataset)["shards"]:
        path = dataset / FOLDER / entry["name"]
        if not path.is_file() or content_digest(path) != entry["sha256"]:
            bad.append(entry["name"])
    return bad
