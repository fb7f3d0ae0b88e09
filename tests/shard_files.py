"""Shards for tests, written in one call."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from datasets.shards import FOLDER, ShardInfo, ShardWriter
from datasets.store import LocalStore

Sample = tuple[str, Mapping[str, bytes | Path]]
"""Key, and for each extension the content or the file that holds it."""


def write_shards(
    samples: Iterable[Sample],
    dataset: Path,
    split: str,
    max_bytes: int = 1 << 30,
    group: int = 0,
) -> list[ShardInfo]:
    """Shards below `dataset/shards`, samples in their order."""
    writer = ShardWriter(dataset / "scratch", group, max_bytes)
    for key, members in samples:
        whole = {
            ext: content.read_bytes() if isinstance(content, Path) else content
            for ext, content in members.items()
        }
        writer.add(split, key, whole)
    return [shard.info for shard in writer.finish(LocalStore(dataset), FOLDER)]
