"""How far two models are apart, clip by clip.

What is hard about a clip is hard for both, so the difference on the same clips is known far better
than either value (a paired bootstrap over speakers, and clips within them).
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tasks.registry.intervals import with_interval
from tasks.registry.metric import ClipValues, Metric, metric

Statistic = Callable[[np.ndarray], float]
SURE = 1.96
"""Standard errors from a mean to the ends of its 95 % interval."""


def mean(values: np.ndarray) -> float:
    """Over clips."""
    return float(np.mean(values))


def median(values: np.ndarray) -> float:
    """Over clips."""
    return float(np.median(values))


def median_size(values: np.ndarray) -> float:
    """Median of absolute values: offsets of either sign must not cancel."""
    return float(np.median(np.abs(values)))


STATISTICS: Mapping[str, Statistic] = {each.__name__: each for each in (mean, median, median_size)}
"""By the names that `ClipValues` has."""


def paired_interval(
    before: np.ndarray,
    after: np.ndarray,
    speakers: Sequence[str],
    statistic: Statistic,
    name: str,
    label: str,
) -> Metric:
    """The statistic of one model less that of another, with its 95 % interval.

    Args:
        before, after: (n,) values of both on the same clips.
        speakers: of each clip.
        statistic: what makes one number of them.
        name: seeds the draws.
        label: of the number.
    """

    def difference(chosen: np.ndarray) -> float:
        return statistic(after[chosen]) - statistic(before[chosen])

    entry = metric(difference(np.arange(len(before))), label, len(before))
    return with_interval(entry, f"{name}, paired", speakers, difference)


def part_of(values: ClipValues, names: Sequence[str], clips: int) -> ClipValues:
    """These metrics of the first clips, which are the same for all models by one protocol."""
    return {
        "clips": values["clips"][:clips],
        "speakers": values["speakers"][:clips],
        "values": {
            name: values["values"][name][:clips] for name in names if name in values["values"]
        },
        "how": {name: values["how"][name] for name in names if name in values["how"]},
    }


def paired_difference(name: str, ours: ClipValues, theirs: ClipValues) -> Metric | None:
    """A metric of one model less that of another, on the clips that both have it for.

    Args:
        name: the metric.
        ours, theirs: values by clip of both.

    Returns:
        None if it is not a number of clips, or no clip has it for both.
    """
    found = _pairs(name, ours, theirs)
    if found is None:
        return None
    before, after, speakers = found
    statistic = STATISTICS[ours["how"][name]]
    return paired_interval(before, after, speakers, statistic, name, "difference to the champion")


def clips_needed(name: str, ours: ClipValues, theirs: ClipValues, loss: float) -> int | None:
    """How many clips like these show a loss of a mean, by the spread of the differences.

    Args:
        name: the metric.
        ours, theirs: values by clip of both.
        loss: the loss, in the metric's unit.

    Returns:
        The number from which a 95 % interval is narrower than the loss on either side; None
        if there are fewer than three clips to tell it by.
    """
    found = _pairs(name, ours, theirs)
    if found is None or len(found[0]) < 3 or loss <= 0:
        return None
    spread = float(np.std(found[1] - found[0], ddof=1))
    return max(2, math.ceil((SURE * spread / loss) ** 2))


def _pairs(
    name: str, ours: ClipValues, theirs: ClipValues
) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """Values of theirs and ours, and the speakers."""
    if name not in ours["values"] or name not in theirs["values"]:
        return None
    before = dict(zip(theirs["clips"], theirs["values"][name], strict=True))
    rows = [
        (before[clip], value, speaker)
        for clip, value, speaker in zip(
            ours["clips"], ours["values"][name], ours["speakers"], strict=True
        )
        if value is not None and before.get(clip) is not None
    ]
    if not rows:
        return None
    values = np.array([row[:2] for row in rows], float)
    return values[:, 0], values[:, 1], [row[2] for row in rows]
