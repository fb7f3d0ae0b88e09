"""From judged rows and finished groups to a published dataset: shards, ledger, index.

Finished shards only get a second name in the dataset's folder. If a group's shards hold
other clips than the current thresholds want, they are rewritten from the group's own shards,
spare ones included; no video is read. The index is written last, and it is what makes a
version: until then readers see the old one. The same rows and clips give the same bytes.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets.errors import UserError
from datasets.media import FPS, SAMPLE_RATE
from datasets.progress import Progress
from datasets.shards.clip_index import ClipTable, table_bytes, table_entry
from datasets.shards.index import (
    FOLDER,
    INDEX,
    file_sizes,
    make_index,
    publish_index,
    read_index,
)
from datasets.shards.leaks import refuse_leaks
from datasets.shards.splits import assign_splits
from datasets.shards.writer import MAX_BYTES, Shard
from datasets.store.local import LocalStore
from datasets.store.lock import STAGING
from datasets.store.manifest import config_digest
from datasets.store.protocol import Store
from models.latentsync.config import MASK
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import GroupEntry
from tasks.ingest.layout import SPARE
from tasks.publish.duplicates import RECORDINGS, inherited_splits
from tasks.publish.group_shards import place_shards
from tasks.publish.ledger import LEDGER, Row, ledger_bytes, select_accepted
from tasks.publish.receipt import (
    RECEIPT,
    Receipt,
    current_index,
    read_previous_splits,
    read_receipt,
    replaced_versions,
)
from tasks.publish.retention import ReplacedVersion, Retention, files_of

PACK_VERSION = 5
"""Raised by one whenever the same rows and clips give different files."""

Extras = Callable[[Mapping[str, Any], Mapping[str, str]], Mapping[str, bytes]]


@dataclass(frozen=True)
class PackConfig:
    """What decides the dataset's content, apart from rows and clips."""

    resolution: int
    test_fraction: float = 0.2
    max_shard_bytes: int = MAX_BYTES
    duplicates: str = RECORDINGS
    """What counts as the same content, one of `tasks.publish.duplicates.KINDS`."""


def with_fraction(config: PackConfig, test_fraction: float) -> PackConfig:
    """A copy with another share of speakers for testing.

    Raises:
        UserError: the share is out of range.
    """
    if not 0 <= test_fraction < 1:
        raise UserError(f"a test fraction of {test_fraction:g} is not possible: use 0 to 0.9")
    return replace(config, test_fraction=test_fraction)


def fingerprint(groups: Sequence[GroupEntry], rows: Sequence[Row], config: PackConfig) -> str:
    """Digest of everything that the published files depend on."""
    read = sorted((source.key, source.digest) for group in groups for source in group.sources)
    about = {"version": PACK_VERSION, "config": asdict(config), "read": read, "rows": list(rows)}
    return config_digest(about)


def find_published(store: Store, wanted: str) -> str | None:
    """The published dataset's digest, if it has that fingerprint."""
    receipt = read_receipt(store)
    if receipt is None or receipt.get("fingerprint") != wanted:
        return None
    try:
        index = read_index(store.url)
        sizes = {LEDGER: receipt["ledger_bytes"]}
        sizes |= {f"{FOLDER}/{name}": size for name, size in file_sizes(index).items()}
        whole = all(store.size(name) == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
    return str(index["digest"]) if whole and receipt.get("digest") == index["digest"] else None


def check_output(store: Store, source: Path | None) -> None:
    """Refuse an output folder in which the user's files would be lost or mixed in.

    Raises:
        UserError: the folder holds other tar files or another index, or is inside the
            source's folder.
    """
    if source is not None and isinstance(store, LocalStore):
        inner, outer = store.folder.resolve(), source.resolve()
        if outer == inner or outer in inner.parents:
            raise UserError(
                f"the output {store.url} is inside the input {source}: choose a folder elsewhere"
            )
    if store.size(INDEX) is not None:
        read_index(store.url)
    elif not store.names(STAGING) and any(name.endswith(".tar") for name in store.names(FOLDER)):
        raise UserError(
            f"{store.url}/{FOLDER} holds tar files that do not belong to a dataset made here: "
            "choose another output folder"
        )


def pack(
    store: Store,
    journal: Journal,
    groups: Sequence[GroupEntry],
    rows: Sequence[Row],
    config: PackConfig,
    notes: Mapping[str, Any],
    extras: Extras,
    on_progress: Progress | None = None,
    successions: Collection[tuple[str, str]] = (),
    retention: Retention | None = None,
) -> str:
    """Publish the dataset.

    Args:
        store: the dataset's store.
        journal: the journal of the groups.
        groups: all groups, with the sources that count.
        rows: all judged rows, in the ledger's order.
        config: resolution of the clips, and how they are split.
        notes: further content of the receipt.
        extras: makes further files to write, from the index and speaker -> split.
        on_progress: called with the number of finished groups and of all groups.
        successions: speaker now, and speaker before, of content under a new name.
        retention: which replaced versions keep their files; None: as by default.

    Returns:
        The digest of the dataset.

    Raises:
        UserError: clips of two splits have the same content.
    """
    retention = retention or Retention()
    before = read_previous_splits(store, config.test_fraction)
    before |= inherited_splits(before, successions)
    by_speaker = speaker_splits(groups, rows, config.test_fraction, before)
    splits = {row["clip_id"]: by_speaker[row["speaker"]] for row in select_accepted(rows)}
    there = set(store.names(FOLDER))
    shards: list[Shard] = []
    for done, group in enumerate(groups):
        if on_progress:
            on_progress(done, len(groups))
        for shard in place_shards(store, journal, group, splits, config.max_shard_bytes):
            if shard.info.split != SPARE:
                shards.append(shard)
                name = f"{FOLDER}/{shard.info.name}"
                if name not in there or _damaged(store, name, shard.info.bytes):
                    store.link(journal.shard_name(shard), name)
    if on_progress:
        on_progress(len(groups), len(groups))
    ledger = ledger_bytes(rows)
    store.write(LEDGER, ledger)
    accepted = {row["clip_id"]: row for row in select_accepted(rows)}
    table = table_bytes(shards, accepted, config.resolution)
    refuse_leaks(store, ClipTable.read(table))
    clips = table_entry(table)
    store.write(f"{FOLDER}/{clips['name']}", table)
    meta = {
        "clips": clips,
        "resolution": config.resolution,
        "crop": journal.config.crop,
        "mask": MASK,
        "fps": FPS,
        "sample_rate": SAMPLE_RATE,
        "duplicates": config.duplicates,
    }
    index = make_index([shard.info for shard in shards], meta)
    current, replaced, now = current_index(store), replaced_versions(store), time.time()
    if current and current["digest"] != index["digest"]:
        entry: ReplacedVersion = {
            "digest": current["digest"],
            "replaced_at": now,
            "files": [*file_sizes(current)],
        }
        replaced.append(entry)
    replaced = retention.of(replaced, now)
    for name, content in extras(index, by_speaker).items():
        store.write(name, content)
    receipt: Receipt = {
        "fingerprint": fingerprint(groups, rows, config),
        "digest": index["digest"],
        "ledger_bytes": len(ledger),
        "packing": asdict(config),
        "splits": {**before, **by_speaker},
        "replaced": replaced,
    }
    store.write(RECEIPT, json.dumps({**receipt, **notes}, indent=1) + "\n")
    publish_index(store, index, files_of(replaced))
    return str(index["digest"])


def _damaged(store: Store, name: str, size: int) -> bool:
    """Whether somebody changed a published shard; objects are either complete or missing."""
    return isinstance(store, LocalStore) and store.size(name) != size


def speaker_splits(
    groups: Sequence[GroupEntry],
    rows: Sequence[Row],
    test_fraction: float,
    fixed: Mapping[str, str],
) -> dict[str, str]:
    """speaker -> split for every speaker with an accepted clip.

    Args:
        groups: the splits that a data set gives its own sources come first.
        rows: judged.
        test_fraction: share of the others to use for testing.
        fixed: speakers already placed by an earlier version.
    """
    official = {
        row["speaker"]: source.split
        for group in groups
        for source in group.sources
        if source.split
        for row in source.rows
    }
    speakers = {row["speaker"] for row in select_accepted(rows)}
    return dict(assign_splits(speakers, test_fraction, fixed={**fixed, **official}))
