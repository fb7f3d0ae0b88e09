"""Which frame of a video is shown when, and the frames in that order.

Speech may be longer than the video, which then runs back and forth, starts again from
its beginning, or freezes. Frames are decoded as they are needed; a few are held to run
backwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from datasets.errors import UserError
from datasets.media import Picture, probe, read_frames
from datasets.media.rates import exact_rate

AUTO, CUT, BACK_AND_FORTH, LOOP, HOLD, KEEP, SPEECH_PADDED = (
    "auto",
    "cut",
    "back-and-forth",
    "loop",
    "hold",
    "keep",
    "speech-padded",
)
LENGTHS = (AUTO, CUT, BACK_AND_FORTH, LOOP, HOLD, KEEP, SPEECH_PADDED)
"""Values of `--length`: the output lasts as long as the speech and a shorter video runs back and
forth, starts again or freezes at its end (`auto` is the first of these); it ends with
whichever ends first; or it keeps the video's own length, and behind the speech the video's own
sound (`keep`) or silence (`speech-padded`)."""
OF_THE_VIDEO = (KEEP, SPEECH_PADDED)
"""Those with which the output lasts as long as the video."""
MIN_FPS, MAX_FPS = 1.0, 120.0
SHORT_FRAMES = 2
"""A video that is at most this many frames too short freezes at its end."""
LEAST_HELD, MOST_HELD = 24, 128
"""Frames held to show a stretch of video backwards. Each stretch is decoded from the key
frame before it, so holding many is worth the memory."""
HELD_BYTES = 256_000_000
"""Bytes of memory that they may take."""


@dataclass(frozen=True)
class Plan:
    """How the frames of an output are chosen."""

    until_s: float
    """Its length."""
    then: str
    """What is shown once the video's frames run out: `BACK_AND_FORTH`, `LOOP` or `HOLD`."""


@dataclass(frozen=True)
class Shown:
    """A frame of the output."""

    source: int
    """Index of the input frame."""
    time_s: float
    """When it is shown."""


def plan_length(length: str, video_s: float, speech_s: float, gap_s: float) -> Plan:
    """Decide how long the output is, and how a shorter video is made to last.

    Args:
        length: one of `LENGTHS`.
        video_s: length of the video.
        speech_s: length of the speech.
        gap_s: seconds from frame to frame.

    Raises:
        UserError: there is no such length.
    """
    check_length(length)
    if length in OF_THE_VIDEO:
        return Plan(video_s, HOLD)
    if length == CUT:
        return Plan(min(video_s, speech_s), HOLD)
    # A frame or two missing is not a reason to turn back.
    short = speech_s - video_s <= SHORT_FRAMES * gap_s
    if length == AUTO:
        return Plan(speech_s, HOLD if short else BACK_AND_FORTH)
    return Plan(speech_s, HOLD if short else length)


def check_length(length: str) -> None:
    """Raise a `UserError` where there is no length of that name."""
    if length not in LENGTHS:
        raise UserError(f"--length must be one of {', '.join(LENGTHS)}, got {length!r}")


def check_fps(fps: float | None) -> float | None:
    """The frame rate that a video is converted to, exactly; None keeps its own.

    Raises:
        UserError: no video has that rate.
    """
    if fps is None:
        return None
    if not MIN_FPS <= fps <= MAX_FPS:
        raise UserError(
            f"--fps must be between {MIN_FPS:g} and {MAX_FPS:g}, got {fps:g}: 25 is the rate that "
            "the networks were trained at; without the option the video keeps its own rate"
        )
    # Integers too: MLflow does not turn them into floats in a table of parameters.
    return float(exact_rate(fps))


def timeline(times_s: np.ndarray, duration_s: float, plan: Plan) -> list[Shown]:
    """Decide which frame is shown when, until the end of the output.

    Args:
        times_s: (n,) times of the video's frames, from 0.
        duration_s: end of its last frame.
        plan: how long the output is, and what is shown once the frames run out.
    """
    shown: list[Shown] = []
    for each in _endless(times_s, duration_s, plan.then):
        # A frame that would be seen for less than a millisecond is left out.
        if each.time_s >= plan.until_s - 1e-3 and shown:
            break
        shown.append(each)
    return shown


def _endless(times_s: np.ndarray, duration_s: float, then: str) -> Iterator[Shown]:
    last = len(times_s) - 1
    ends = np.append(times_s[1:], duration_s)
    for turn in count():
        begin = turn * duration_s
        if turn and then == HOLD:
            gap = duration_s - float(times_s[last])
            yield Shown(last, duration_s + (turn - 1) * gap)
        elif then == BACK_AND_FORTH and turn % 2:
            for index in range(last, -1, -1):
                yield Shown(index, float(begin + duration_s - ends[index]))
        else:
            for index in range(last + 1):
                yield Shown(index, float(begin + times_s[index]))


def frames_in_order(
    path: Path, order: list[Shown], times_s: np.ndarray, fps: float | None = None
) -> Iterator[Picture]:
    """The frames of a timeline, decoded as they are needed.

    `times_s` and `fps` are those of the first reading.
    """
    position, last = 0, None
    while position < len(order):
        if last is not None and order[position].source == order[position - 1].source:
            # At a turn, or where the video freezes.
            yield last
            position += 1
            continue
        step = -1 if _goes_back(order, position) else 1
        stop = position + 1
        while stop < len(order) and order[stop].source - order[stop - 1].source == step:
            stop += 1
        indices = [each.source for each in order[position:stop]]
        if step == 1:
            for last in frames_between(path, times_s, indices[0], indices[-1], fps):
                yield last
        else:
            held = _frames_held(path)
            for start in range(0, len(indices), held):
                part = indices[start : start + held]
                for last in reversed(list(frames_between(path, times_s, part[-1], part[0], fps))):
                    yield last
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
