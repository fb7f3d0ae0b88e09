"""Which frame of a video is shown when, and the frames in that order.

Speech may be longer than the video: then it is played forwards and backwards in turn. Frames are
decoded as they are needed; a few are held where they run backwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.errors import UserError
from datasets.media import Picture, probe, read_frames

LEAST_HELD, MOST_HELD = 24, 128
"""Frames that are held to show a stretch of video backwards. Each stretch is decoded from the key
frame before it, so that many are worth their memory."""
HELD_BYTES = 256_000_000
"""Memory that they may take."""


@dataclass(frozen=True)
class Shown:
    """A frame of the output."""

    source: int
    """Index of the frame of the input."""
    time_s: float
    """When it is shown."""


def timeline(times_s: np.ndarray, duration_s: float, until_s: float) -> list[Shown]:
    """Which frame is shown when, forth and back until the sound ends.

    Args:
        times_s: (n,) of the video's frames, from 0.
        duration_s: end of its last frame.
        until_s: end of the sound.
    """
    count = len(times_s)
    ends = np.append(times_s[1:], duration_s)
    shown: list[Shown] = []
    turn = 0
    while True:
        begin = turn * duration_s
        indices = range(count) if turn % 2 == 0 else range(count - 1, -1, -1)
        for index in indices:
            at = begin + (times_s[index] if turn % 2 == 0 else duration_s - ends[index])
            # A frame of which less than a thousandth of a second would be seen is left out.
            if at >= until_s - 1e-3 and shown:
                return shown
            shown.append(Shown(index, float(at)))
        turn += 1


def frames_in_order(
    path: Path, order: list[Shown], times_s: np.ndarray, fps: float | None = None
) -> Iterator[Picture]:
    """The frames of a timeline, decoded as they are needed.

    `times_s` and `fps` are those of the first reading.
    """
    position = 0
    while position < len(order):
        step = -1 if _goes_back(order, position) else 1
        stop = position + 1
        while stop < len(order) and order[stop].source - order[stop - 1].source == step:
            stop += 1
        indices = [each.source for each in order[position:stop]]
        if step == 1:
            yield from frames_between(path, times_s, indices[0], indices[-1], fps)
        else:
            held = _frames_held(path)
            for start in range(0, len(indices), held):
                part = indices[start : start + held]
                yield from reversed(list(frames_between(path, times_s, part[-1], part[0], fps)))
        position = stop


def _frames_held(path: Path) -> int:
    info = probe(path)
    # As the decoder gives them: luma, and at least half as much chroma.
    size = info.width * info.height * (1.5 if info.kind.bits <= 8 else 3)
    return max(LEAST_HELD, min(MOST_HELD, int(HELD_BYTES / size)))


def _goes_back(order: list[Shown], position: int) -> bool:
    following = min(position + 1, len(order) - 1)
    return order[following].source < order[position].source


def frames_between(
    path: Path, times_s: np.ndarray, first: int, last: int, fps: float | None = None
) -> Iterator[Picture]:
    """Frames `first` to `last` of the video, in order."""
    gap = np.diff(times_s).min() / 2 if len(times_s) > 1 else 0.5
    begin = max(0.0, float(times_s[first] - gap))
    expected = first
    for frame in read_frames(path, fps=fps, start_s=begin):
        if frame.time_s < times_s[expected] - gap:
            continue
        yield frame.picture
        expected += 1
        if expected > last:
            return
    raise UserError(
        f"{path} gave {expected} frames on second reading, {last + 1} on the first: it is damaged "
        "or was changed meanwhile"
    )
