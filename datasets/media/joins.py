"""Joins of recordings that were concatenated without new timestamps, as by `cat a.ts b.ts`.

At such a join the times of all streams start again. Picture and sound seldom end at the same
moment, so if each simply went on from its own end, they would drift apart join by join.
The picture goes on without a gap, and the sound is moved by as much as the picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from av.container import InputContainer

from datasets.errors import SourceError
from datasets.media.container import (
    BROKEN,
    LONGEST_GAP_S,
    LONGEST_REPEAT_S,
    frame_rate,
    open_container,
    video_stream,
)

RESTARTING = {"mpegts", "mpeg"}
"""Formats that can be joined like this; others have an index, or times that cannot jump back."""
NEAR_S = 5.0
"""Seconds by which the ends, and beginnings, of one recording's streams may differ."""


@dataclass(frozen=True)
class Join:
    """One join."""

    before_s: float
    """Container time at which the picture ended, as stored in the file."""
    after_s: float
    """Container time at which it begins again."""
    shift_s: float
    """Offset added to the times after it."""


def joins(container: InputContainer) -> list[Join]:
    """All joins of an open file, which is read once more but not decoded."""
    if not RESTARTING & set(container.format.name.split(",")):
        return []
    try:
        with open_container(Path(container.name)) as again:
            stream = video_stream(again)
            return _between(list(_spans(again, stream)), 1 / frame_rate(stream))
    except SourceError:
        return []


def _spans(container: InputContainer, stream: Any) -> Iterator[tuple[float, float]]:
    """First and last time of presentation of each stretch without a jump."""
    last: float | None = None
    low = high = 0.0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except BROKEN:
            packet = None
        if packet is None:
            break
        if packet.dts is None or packet.pts is None:
            continue
        decoded, shown = (float(time * packet.time_base) for time in (packet.dts, packet.pts))
        if last is None:
            low = high = shown
        elif not last - LONGEST_REPEAT_S <= decoded <= last + LONGEST_GAP_S:
            yield low, high
            low = high = shown
        low, high, last = min(low, shown), max(high, shown), decoded
    if last is not None:
        yield low, high


def _between(spans: Sequence[tuple[float, float]], step: float) -> list[Join]:
    found = []
    shift = 0.0
    for (_, before), (after, _) in pairwise(spans):
        shift += before + step - after
        found.append(Join(before, after, shift))
    return found


class Joined:
    """The joins of a file that a stream of sound passes, one after another."""

    def __init__(self, found: Sequence[Join]) -> None:
        self._left = list(found)

    def shift(self, before_s: float, after_s: float) -> float | None:
        """Offset to add to times from here on, where the stream jumps from one container time
        to another; None if the picture has no such jump."""
        for index, join in enumerate(self._left):
            if abs(join.before_s - before_s) <= NEAR_S and abs(join.after_s - after_s) <= NEAR_S:
                del self._left[: index + 1]
                return join.shift_s
        return None
