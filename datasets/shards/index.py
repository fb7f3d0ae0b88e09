"""WebDataset shards: plain tar files whose bytes depend only on their samples.

A shard holds samples one after another, each as members `key.ext`, sorted, with no times
and no owners; its name ends in its content's digest. So a new version never writes over a
shard of the old one, and readers of the old one are not disturbed until `index.json` is
replaced. The index names the shards with counts, sizes and sha256, and its digest names the
version of the dataset. Plain `webdataset` reads the shards.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from datasets.errors import UserError
from datasets.shards.writer import OUR_NAME, ShardEntry, ShardInfo
from datasets.store.manifest import config_digest
from datasets.store.open import open_store
from datasets.store.protocol import Store

INDEX = "index.json"
FOLDER = "shards"
VERSION = 1


class ClipsEntry(TypedDict):
    """The file with the table of clips (`datasets.shards.clip_index`), below `shards/`."""

    name: str
    bytes: int
    sha256: str


class DatasetIndex(TypedDict):
    """Content of `index.json`."""

    version: int
    digest: str
    counts: dict[str, int]
    """Split -> number of clips."""
    shards: list[ShardEntry]
    resolution: int
    """Side of the aligned faces, pixels."""
    fps: float
    sample_rate: NotRequired[int]
    """Sample rate of the sound, Hz; missing in older datasets."""
    crop: NotRequired[str]
    """Name of the alignment; missing in datasets with the former, larger crop."""
    mask: NotRequired[str]
    """Name of the shape that the alignment is for."""
    duplicates: NotRequired[str]
    """What counted as the same content, published once: `recordings` or `files`; missing in older
    datasets, where it was not looked for."""
    clips: NotRequired[ClipsEntry]
    """The table of clips; missing in older datasets."""


def file_sizes(index: DatasetIndex) -> dict[str, int]:
    """Name below `shards/` -> bytes, of all files that an index names."""
    files = {shard["name"]: shard["bytes"] for shard in index["shards"]}
    return files | ({index["clips"]["name"]: index["clips"]["bytes"]} if "clips" in index else {})


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


def make_index(shards: Sequence[ShardInfo], meta: Mapping[str, Any]) -> DatasetIndex:
    """The index of a dataset. Its `digest` changes exactly when shards or `meta` do.

    Args:
        shards: all shards of this version.
        meta: further entries of the index, such as `resolution`.
    """
    entries = [asdict(shard) for shard in sorted(shards, key=lambda shard: shard.name)]
    splits = sorted({shard.split for shard in shards})
    counts = {
        split: sum(shard.samples for shard in shards if shard.split == split) for split in splits
    }
    body = {**meta, "version": VERSION, "counts": counts, "shards": entries}
    return cast(DatasetIndex, {**body, "digest": config_digest(body)})


def publish_index(store: Store, index: DatasetIndex, keep: Sequence[str] = ()) -> None:
    """Publish an index as that of the dataset in a store, then remove shards that it replaces.

    Args:
        store: the dataset's store.
        index: the new version's index.
        keep: names of files that stay for readers of the previous version.
    """
    store.write(INDEX, json.dumps(index, indent=1, sort_keys=True) + "\n")
    remove_replaced(store, index, keep)


def remove_replaced(store: Store, index: DatasetIndex, keep: Sequence[str] = ()) -> None:
    """Remove files of ours that neither the published index nor `keep` names."""
    names = [*file_sizes(index), *keep]
    current = {f"{FOLDER}/{name}" for name in names}
    for name in store.names(FOLDER):
        if name not in current and OUR_NAME.fullmatch(name.rpartition("/")[2]):
            store.delete(name)


def read_index(dataset: Path | str) -> DatasetIndex:
    """The index of a dataset in a folder or in object storage.

    Raises:
        UserError: there is no index, or it is not one of ours.
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
            f"{dataset}/{INDEX} is not a dataset index of version {VERSION}: refresh the dataset"
        )
    return cast(DatasetIndex, index)


def check_crop(dataset: Path | str, index: DatasetIndex, *wanted: str) -> None:
    """Check that the faces of a dataset have the required alignment.

    Args:
        dataset: its folder or address.
        index: its index.
        wanted: names of the alignments that serve, such as `datasets.faces.alignment.CROP`.

    Raises:
        UserError: the alignment is another one.
    """
    found = index.get("crop")
    if found is None:
        raise UserError(
            f"the dataset {dataset} was made with the former, larger crop, in which the chin "
            "hangs out of the mask: refresh it with this release, which ingests its files again"
        )
    if found not in wanted:
        raise UserError(
            f"the faces of the dataset {dataset} are aligned as {found!r}, but the model is for "
            f"{' or '.join(map(repr, wanted))}: refresh it with --crop, or use the release that "
            "made it"
        )


def verify(dataset: Path | str) -> list[str]:
    """Names of files that are missing or differ from the index; empty if all are intact."""
    store, index = open_store(dataset), read_index(dataset)
    bad = []
    for entry in [*index["shards"], *([index["clips"]] if "clips" in index else [])]:
        try:
            with store.open(f"{FOLDER}/{entry['name']}") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]  # type: ignore[arg-type]
        except FileNotFoundError:
            same = False
        if not same:
            bad.append(entry["name"])
    return bad
