"""Splits depend on speakers alone."""

import pytest

from datasets.shards.splits import assign_splits, speaker_hash

NAMES = [f"speaker {number}" for number in range(200)]


def test_the_share_is_about_right_and_nobody_moves_when_others_come() -> None:
    few, many = assign_splits(NAMES[:100], 0.2), assign_splits(NAMES, 0.2)
    assert all(many[name] == split for name, split in few.items())
    assert 25 <= sum(split == "test" for split in many.values()) <= 55


def test_both_splits_are_filled() -> None:
    low = min(NAMES, key=speaker_hash)
    high = max(NAMES, key=speaker_hash)
    assert assign_splits([low, high], 1e-9) == {low: "test", high: "train"}
    assert assign_splits([low, high], 1 - 1e-9) == {low: "test", high: "train"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_who_has_a_split_keeps_it_whatever_the_hash_says(split: str) -> None:
    fixed = dict.fromkeys(NAMES[:50], split)
    found = assign_splits(NAMES, 0.3, fixed=fixed | {"gone": "test"})
    assert {found[name] for name in NAMES[:50]} == {split}
    assert found.keys() == set(NAMES)
    free = assign_splits(NAMES, 0.3)
    assert all(found[name] == free[name] for name in NAMES[50:])
    # A speaker's own split is not taken away to fill one that is empty.
    assert assign_splits(["a", "b"], 0.5, fixed={"a": "train", "b": "train"}) == {
        "a": "train",
        "b": "train",
    }


def test_one_speaker_is_for_training() -> None:
    assert assign_splits(["a", "a"], 0.5) == {"a": "train"}
    assert assign_splits([], 0.5) == {}
    assert set(assign_splits(NAMES, 0).values()) == {"train"}


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.5"):
        assign_splits(NAMES, 1.5)
