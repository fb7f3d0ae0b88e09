"""The finished shards of a group, written again when other clips belong in them."""

import heapq
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.shards.index import read_samples
from datasets.shards.writer import Shard, ShardWriter
from datasets.store.local import LocalStore
from datasets.store.protocol import Store
from tasks.ingest.journal import Journal
from tasks.ingest.journal_entries import GroupEntry
from tasks.ingest.layout import SHARDS, SPARE

Row = Mapping[str, Any]


def place_shards(
    store: Store,
    journal: Journal,
    group: GroupEntry,
    splits: Mapping[str, str],
    max_shard_bytes: int,
) -> list[Shard]:
    """The shards of a group, of which those with the wrong content are rewritten.

    Args:
        store: the dataset's store.
        journal: the journal of the group.
        group: with the sources that count.
        splits: clip id -> split of the accepted clips; all others are spare.
        max_shard_bytes: size at which a shard is closed.
    """
    have = {key: shard.info.split for shard in group.shards for key in shard.keys}
    ranks = ranks_of(group)
    want = {key: splits.get(key, SPARE) for key in have if key in ranks}
    missing = [key for key in ranks if key in splits and key not in have]
    if missing:
        raise RuntimeError(f"the clips {missing} of group {group.number} are in none of its shards")
    moved = {key for key in have if have[key] != want.get(key)}
    concerned = {have[key] for key in moved} | {want[key] for key in moved if key in want}
    if not concerned:
        return group.shards
    # The shards of a split depend only on its own clips.
    old = [shard for shard in group.shards if shard.info.split in concerned]
    with tempfile.TemporaryDirectory(prefix="latentsync-") as scratch:
        writer = ShardWriter(scratch_of(journal, scratch), group.number, max_shard_bytes)
        try:
            for key, members in merged(store, journal, old, ranks):
                writer.add(want[key], key, members)
            made = writer.finish(store, f"{journal.prefix}/{SHARDS}")
        except BaseException:
            writer.discard()
            raise
    made = sorted(
        [*made, *(shard for shard in group.shards if shard not in old)],
        key=lambda shard: shard.info.name,
    )
    journal.repack(group.number, made)
    kept = {shard.info.name for shard in made}
    for shard in old:
        if shard.info.name not in kept:
            store.delete(journal.shard_name(shard))
    return made


def ranks_of(group: GroupEntry) -> dict[str, int]:
    """clip id -> place, in the order in which ingestion hands clips on."""
    ordered = [
        row["clip_id"]
        for source in group.sources
        for row in sorted(source.rows, key=_handed_on)
        if row["clip_id"]
    ]
    return {clip_id: rank for rank, clip_id in enumerate(ordered)}


def _handed_on(row: Row) -> tuple[Any, ...]:
    # Shots are numbered over all annotated parts of a file, which need not be in order of time.
    return row["shot"], row["end_s"], row["track"], row["start_s"]


def merged(
    store: Store, journal: Journal, shards: Sequence[Shard], ranks: Mapping[str, int]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Samples of several shards in the order of their ranks, without those that have none."""

    def ranked(shard: Shard) -> Iterator[tuple[int, str, dict[str, bytes]]]:
        for key, members in read_samples(store, journal.shard_name(shard)):
            if key in ranks:
                yield ranks[key], key, members

    for _, key, members in heapq.merge(*map(ranked, shards), key=lambda sample: sample[0]):
        yield key, members


def scratch_of(journal: Journal, scratch: str) -> Path:
    """The folder in which shards grow: on the disk of the dataset if that is here."""
    store = journal.store
    if isinstance(store, LocalStore):
        return store.folder / journal.prefix / "unfinished"
    return Path(scratch)
