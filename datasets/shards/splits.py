"""Dividing speakers into those for training and those for testing."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal

Split = Literal["train", "test"]


def speaker_hash(speaker: str, seed: str = "") -> float:
    """A number in [0, 1) that depends only on the name (and the seed)."""
    digest = hashlib.sha256(f"{seed}:{speaker}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign_splits(
    speakers: Iterable[str],
    test_fraction: float,
    seed: str = "",
    fixed: Mapping[str, str] | None = None,
) -> dict[str, Split]:
    """A split for every speaker.

    A speaker whose hash is below `test_fraction` is for testing, so adding speakers moves
    nobody else. If that leaves a split empty, the free speaker with the lowest (or highest)
    hash fills it; a single speaker is for training.

    Args:
        speakers: their names.
        test_fraction: expected share of them that is for testing.
        seed: gives other hashes.
        fixed: speakers that already have a split, requested now or not: they keep it.

    Raises:
        ValueError: `test_fraction` is outside [0, 1).
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must be in [0, 1), got {test_fraction}")
    fixed = fixed or {}
    ranked = sorted(set(speakers), key=lambda name: (speaker_hash(name, seed), name))
    splits: dict[str, Split] = {
        name: "test"
        if fixed.get(name, "") == "test"
        or (name not in fixed and speaker_hash(name, seed) < test_fraction)
        else "train"
        for name in ranked
    }
    free = [name for name in ranked if name not in fixed]
    if len(ranked) < 2 or test_fraction == 0 or not free:
        only = len(ranked) < 2 or test_fraction == 0
        return splits | (dict.fromkeys(free, "train") if only else {})
    if "test" not in splits.values():
        splits[free[0]] = "test"
    if "train" not in splits.values():
        splits[free[-1]] = "train"
    return splits
