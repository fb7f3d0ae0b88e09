"""Which sources are ingested together: those whose clips share shards.

A group is ingested by one worker, which writes its shards as it goes.
Groups depend only on the list of sources, not on how many workers there are or which of
them is faster, and so do the shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from datasets.sources.items import SourceItem

GROUP_BYTES = 64 << 20
"""Expected bytes of a group's sources; the clips with landmarks take about as much."""
GROUP_ITEMS = 200
"""Most sources of a group: what a worker's death can cost."""
FEWEST_GROUPS = 64
"""Small datasets are cut finer, so that many workers have work."""
BYTES_PER_SECOND = 150_000
"""Bytes per second of video, if only the length is known."""
UNKNOWN_BYTES = 5 << 20
"""Bytes of a source about which nothing is known."""


@dataclass(frozen=True)
class SourceGroup:
    """Sources that are ingested together."""

    number: int
    """Unique in its dataset; part of the names of the group's shards."""
    items: tuple[SourceItem, ...]
    weight: float
    """Expected bytes."""

    @property
    def name(self) -> str:
        return f"{self.number:06d}"


def group_sources(items: Sequence[SourceItem], first: int) -> list[SourceGroup]:
    """Put sources into groups, in the order of their keys.

    Args:
        items: sources with distinct keys.
        first: number of the first group.
    """
    ordered = sorted(items, key=lambda item: item.key)
    weights = [expected_bytes(item) for item in ordered]
    limit = min(GROUP_BYTES, sum(weights) / FEWEST_GROUPS)
    groups: list[SourceGroup] = []
    chosen: list[SourceItem] = []
    total = 0.0
    for item, weight in zip(ordered, weights, strict=True):
        if chosen and (total + weight > limit or len(chosen) == GROUP_ITEMS):
            groups.append(SourceGroup(first + len(groups), tuple(chosen), total))
            chosen, total = [], 0.0
        chosen.append(item)
        total += weight
    if chosen:
        groups.append(SourceGroup(first + len(groups), tuple(chosen), total))
    return groups


def expected_bytes(item: SourceItem) -> float:
    """Size of a source in bytes, or an estimate."""
    if item.parts and item.expected_seconds:
        return item.expected_seconds * BYTES_PER_SECOND
    return item.expected_bytes or item.expected_seconds * BYTES_PER_SECOND or UNKNOWN_BYTES
