"""Windows for training: which frames of which clip, drawn by position and not by history."""

import numpy as np


def rng_for(seed: int, *place: int) -> np.random.Generator:
    """Random numbers of one sample, by its place in the training: such as its step and index.

    A run that resumes at a step draws what an uninterrupted run would have drawn.
    """
    return np.random.default_rng([seed, *place])


def two_starts(
    rng: np.random.Generator, num_frames: int, length: int, distance: int
) -> tuple[int, int]:
    """Starts of two windows of `length` frames in a clip, at least `distance` apart.

    The first is uniform over those that leave room for a second, the second uniform over
    that room.

    Raises:
        ValueError: the clip has fewer than `length + distance` frames.
    """
    if num_frames < length + distance:
        raise ValueError(
            f"{num_frames} frames have no room for two windows of {length} that are "
            f"{distance} apart"
        )
    starts = np.arange(num_frames - length + 1)
    allowed = [start for start in starts if start >= distance or start + distance <= starts[-1]]
    first = int(rng.choice(allowed))
    second = int(rng.choice(starts[np.abs(starts - first) >= distance]))
    return first, second
