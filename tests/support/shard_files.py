"""Shards for tests, written in one call."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.shards.index import FOLDER, make_index, publish_index
from datasets.shards.writer import ShardInfo, ShardWriter
from datasets.store.local import LocalStore
from datasets.store.protocol import Store

Sample = tuple[str, Mapping[str, bytes | Path]]
"""Key, and for each extension the content or the file that holds it."""


def write_shards(
    samples: Iterable[Sample],
    dataset: Path,
    split: str,
    max_bytes: int = 1 << 30,
    max_samples: int = 1 << 30,
) -> list[ShardInfo]:
    """Shards below `dataset/shards`, samples in their order, a group for each `max_samples`."""
    whole = [
        (
            key,
            {
                ext: content.read_bytes() if isinstance(content, Path) else content
                for ext, content in members.items()
            },
        )
        for key, members in samples
    ]
    made: list[ShardInfo] = []
    for group, first in enumerate(range(0, len(whole), max_samples)):
        writer = ShardWriter(dataset / "scratch", group, max_bytes)
        for key, files in whole[first : first + max_samples]:
            writer.add(split, key, files)
        made += [shard.info for shard in writer.finish(LocalStore(dataset), FOLDER)]
    return made


def write_index(store: Store, shards: Sequence[ShardInfo], meta: Mapping[str, Any]) -> str:
    """Publish shards as the dataset in a store; returns its digest."""
    index = make_index(shards, meta)
    publish_index(store, index)
    return str(index["digest"])
