"""Which speakers are for training and which for testing."""

import hashlib
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "test"]


def speaker_hash(speaker: str, seed: str = "") -> float:
    """A number in [0, 1) that depends on the name (and the seed) alone."""
    digest = hashlib.sha256(f"{seed}:{speaker}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign_splits(
    speakers: Iterable[str], test_fraction: float, seed: str = "", fill: bool = True
) -> dict[str, Split]:
    """A split for every speaker.

    A speaker whose hash is below `test_fraction` is for testing, so adding speakers moves
    nobody else. Only when that leaves a split empty, and with `fill`, does the speaker of the
    lowest (or highest) hash fill it; a single speaker is for training.

    Raises:
        ValueError: `test_fraction` is outside [0, 1).
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must be in [0, 1), got {test_fraction}")
    ranked = sorted(set(speakers), key=lambda name: (speaker_hash(name, seed), name))
    splits: dict[str, Split] = {
        name: "test" if speaker_hash(name, seed) < test_fraction else "train" for name in ranked
    }
    if not fill:
        return splits
    if len(ranked) < 2 or test_fraction == 0:
        return dict.fromkeys(ranked, "train")
    if "test" not in splits.values():
        splits[ranked[0]] = "test"
    if "train" not in splits.values():
        splits[ranked[-1]] = "train"
    return splits
