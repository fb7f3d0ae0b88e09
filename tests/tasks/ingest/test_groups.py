"""Groups depend on the list of sources alone, and none is too large."""

import random

from datasets.sources.items import How, Part, SourceItem
from tasks.ingest.groups import (
    BYTES_PER_SECOND,
    FEWEST_GROUPS,
    GROUP_BYTES,
    GROUP_ITEMS,
    UNKNOWN_BYTES,
    expected_bytes,
    group_sources,
)


def item(key: str, size: int = 0, seconds: float = 0.0, parts: int = 0) -> SourceItem:
    spans = tuple(Part(f"{key}-{number}", 0, 1) for number in range(parts))
    return SourceItem(
        key, key, key, "s", How.FILE, "", spans, expected_bytes=size, expected_seconds=seconds
    )


def test_a_small_list_is_cut_fine() -> None:
    groups = group_sources([item(f"{n:02d}", 1 << 20) for n in range(48)], 5)
    assert [len(group.items) for group in groups] == [1] * 48
    assert [group.number for group in groups] == list(range(5, 53))


def test_order_of_the_list_does_not_matter() -> None:
    items = [item(f"{n:05d}", 1 << 20) for n in range(9000)]
    groups = group_sources(items, 0)
    random.Random(1).shuffle(items)
    assert group_sources(items, 0) == groups
    assert [each.key for group in groups for each in group.items] == [
        f"{n:05d}" for n in range(9000)
    ]
    assert all(group.weight <= GROUP_BYTES for group in groups)
    assert len(groups) >= FEWEST_GROUPS


def test_limits() -> None:
    tiny = group_sources([item(f"{n:06d}", 1) for n in range(100_000)], 0)
    assert max(len(group.items) for group in tiny) == GROUP_ITEMS
    large = group_sources([item(str(n), 1 << 30) for n in range(3)], 0)
    assert [len(group.items) for group in large] == [1, 1, 1]
    assert group_sources([], 0) == []


def test_sizes_are_guessed_where_they_are_not_known() -> None:
    assert expected_bytes(item("a", size=7)) == 7
    assert expected_bytes(item("a", seconds=10)) == 10 * BYTES_PER_SECOND
    assert expected_bytes(item("a", size=1 << 40, seconds=10, parts=2)) == 10 * BYTES_PER_SECOND
    assert expected_bytes(item("a")) == UNKNOWN_BYTES
