"""How sure a number is: 95 % intervals by the bootstrap over speakers, and clips within them.

Clips of one speaker are alike, so drawing clips alone would promise too much (a two-stage
bootstrap, Davison and Hinkley 1997, section 3.8). Draws are seeded, so the same numbers have
the same interval.
"""

import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from tasks.registry.metric import Metric

DRAWS = 1000
LEVEL = 95.0
LEAST = 2
"""Fewest clips that say anything about spread."""


def draws_of(speakers: Sequence[str], count: int, seed: int) -> list[np.ndarray]:
    """Indices of clips, drawn speaker by speaker.

    Args:
        speakers: of each clip.
        count: number of draws.
        seed: of the draws.

    Returns:
        `count` arrays of indices, each about as long as `speakers`.
    """
    rng = np.random.default_rng(seed)
    names = sorted(set(speakers))
    members = [np.flatnonzero(np.array(speakers) == name) for name in names]
    found = []
    for _ in range(count):
        chosen = rng.integers(len(members), size=len(members))
        found.append(
            np.concatenate([rng.choice(members[each], len(members[each])) for each in chosen])
        )
    return found


def with_interval(
    entry: Metric,
    name: str,
    speakers: Sequence[str],
    statistic: Callable[[np.ndarray], float],
    draws: int = DRAWS,
) -> Metric:
    """A metric with `low` and `high`, the middle 95 % of its values over draws of clips.

    Args:
        entry: the metric.
        name: its name, which seeds the draws.
        speakers: of each clip that has a value.
        statistic: the metric over clips given by their indices; NaN where it has no value.
    """
    if entry["value"] is None or len(speakers) < LEAST:
        return entry
    indices = draws_of(speakers, draws, zlib.crc32(name.encode()))
    values = np.array([statistic(each) for each in indices])
    values = values[np.isfinite(values)]
    if not len(values):
        return entry
    half = (100 - LEVEL) / 2
    low, high = np.percentile(values, [half, 100 - half])
    if not (math.isfinite(low) and math.isfinite(high)):
        return entry
    return {**entry, "low": float(low), "high": float(high)}
