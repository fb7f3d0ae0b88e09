"""Which tracks of a video show the same person, within a shot and over cuts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.faces.looks import unlikeness

TOGETHER = 2
"""Frames that two tracks of one person may share, as when a face is lost and found again at
once."""
ALIKE, ALIKE_IN_PLACE = 1.0, 1.5
"""Largest unlikeness of looks of one person; the larger one where a face comes back, within a shot,
to the place where it was, at the same size. Of real clips, the same man in a wide and in a medium
shot measures 0.98, the most similar pair of different people 1.03."""
NEAR, SIZES = 0.75, (0.7, 1.45)
"""Same place: at most this many face widths apart; same size: within these ratios."""


@dataclass(frozen=True)
class Stretch:
    """What is known about a track for telling whose it is."""

    shot: int
    """Number of the shot that it lies in."""
    first: int
    """Its frames, `last` included."""
    last: int
    begin: np.ndarray
    """(4,) the box where it begins: left, top, right, bottom, pixels;"""
    end: np.ndarray
    """and where it ends."""
    look: np.ndarray
    """See `tasks.faces.looks`."""
    weight: float
    """Area of the face summed over its frames, up to a factor."""


def group_people(stretches: Sequence[Stretch]) -> list[list[int]]:
    """Positions of the tracks of each person, in the order in which people are first seen.

    The largest faces are assigned first, so that doubtful ones are compared with clear ones. Faces
    seen at the same time are not the same person.
    """
    people: list[list[int]] = []
    order = sorted(range(len(stretches)), key=lambda index: -stretches[index].weight)
    for index in order:
        found = _nearest(stretches, people, stretches[index])
        if found is None:
            people.append([index])
        else:
            found.append(index)
    for person in people:
        person.sort(key=lambda index: stretches[index].first)

    def first_seen(person: list[int]) -> tuple[int, float]:
        first = stretches[person[0]]
        return first.first, float(first.begin[0])

    return sorted(people, key=first_seen)


def _nearest(
    stretches: Sequence[Stretch], people: list[list[int]], new: Stretch
) -> list[int] | None:
    """The person whom a track continues, if any."""
    best, least = None, 1.0
    for person in people:
        known = [stretches[index] for index in person]
        if any(_shared(each, new) > TOGETHER for each in known):
            continue
        share = min(
            unlikeness(each.look, new.look) / (ALIKE_IN_PLACE if _in_place(each, new) else ALIKE)
            for each in known
        )
        if share < least:
            best, least = person, share
    return best


def _shared(first: Stretch, second: Stretch) -> int:
    return min(first.last, second.last) - max(first.first, second.first) + 1


def _in_place(first: Stretch, second: Stretch) -> bool:
    """Whether one begins about where the other ends, in the same shot."""
    if first.shot != second.shot:
        return False
    earlier, later = sorted((first, second), key=lambda each: each.first)
    before, after = earlier.end, later.begin
    widths = before[2] - before[0], after[2] - after[0]
    if not SIZES[0] < widths[1] / max(widths[0], 1e-6) < SIZES[1]:
        return False
    centres = [(box[:2] + box[2:]) / 2 for box in (before, after)]
    return bool(np.linalg.norm(centres[0] - centres[1]) < NEAR * max(widths))
