"""Places where a stream can be entered, for containers without an index of their own.

MPEG transport and program streams are searched by the timestamp of any packet, after which a
decoder must wait for the next key frame, past the requested place. One pass over the
packets, without decoding, finds the key frames; its result is cached, since video that runs
backwards enters its file again and again.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from av.container import InputContainer

from datasets.errors import SourceError
from datasets.media.container import (
    BROKEN,
    LONGEST_GAP_S,
    LONGEST_REPEAT_S,
    open_container,
    video_stream,
)

WITHOUT_INDEX = {"mpegts", "mpeg"}
"""FFmpeg's names of these containers."""
TRIES = 3
"""Number of key frames that are tried, each earlier than the last."""


BEFORE = 3
"""Packets with a place of their own that are read before a key frame: a packet of the container may
hold several pictures, and the time of the first one after a jump is not always known."""


@dataclass(frozen=True)
class Keyframe:
    """A key frame."""

    time_s: float
    """Container time."""
    pts: int
    """The same time in the stream's ticks."""
    position: int
    """Position in the file, in bytes, a few packets before it."""


def enter(container: InputContainer, stream: Any, target_s: float) -> Keyframe | None:
    """Go to the last key frame at or before a container time, or a little before it.

    Returns:
        The key frame; None if that is not possible, in which case the position is undefined.
    """
    known = keyframes(Path(container.name))
    last = bisect_right([each.time_s for each in known], target_s + 1e-6)
    for keyframe in reversed(known[max(0, last - TRIES) : last]):
        container.seek(keyframe.position, stream=stream, unsupported_byte_offset=True)
        if _is_ahead(container, stream, keyframe):
            container.seek(keyframe.position, stream=stream, unsupported_byte_offset=True)
            return keyframe
    return None


def has_index(container: InputContainer) -> bool:
    """Whether the container itself can find the key frame before a time."""
    return not WITHOUT_INDEX & set(container.format.name.split(","))


def _is_ahead(container: InputContainer, stream: Any, keyframe: Keyframe) -> bool:
    for packet in packets_of(container, stream):
        if packet.is_keyframe and packet.pts is not None and packet.pts >= keyframe.pts:
            return bool(packet.pts == keyframe.pts)
    return False


def keyframes(path: Path) -> tuple[Keyframe, ...]:
    """The key frames of a file, up to where its times jump: later frames have other times when it
    is read from the beginning."""
    facts = path.stat()
    return _keyframes(path.absolute(), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=4)
def _keyframes(path: Path, size: int, changed_ns: int) -> tuple[Keyframe, ...]:
    found: list[Keyframe] = []
    last: float | None = None
    places: deque[int] = deque(maxlen=BEFORE)
    try:
        with open_container(path) as container:
            stream = video_stream(container, 1)
            for packet in packets_of(container, stream):
                if packet.pos is not None:
                    places.append(packet.pos)
                if packet.pts is None or packet.dts is None:
                    continue
                time, decoded = (
                    float(each * packet.time_base) for each in (packet.pts, packet.dts)
                )
                if last is not None and not (
                    last - LONGEST_REPEAT_S <= decoded <= last + LONGEST_GAP_S
                ):
                    break
                last = decoded
                if packet.is_keyframe and places:
                    found.append(Keyframe(time, packet.pts, places[0]))
    except SourceError:
        return ()
    return tuple(found)


def packets_of(container: InputContainer, stream: Any) -> Iterator[Any]:
    """A stream's packets, as far as they can be read."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except BROKEN:
            return
        if packet is None or not packet.size:
            return
        yield packet
