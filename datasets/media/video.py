"""Reading the pictures of a video, at a constant rate or as they are."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from datasets.media.colour import Tags
from datasets.media.container import (
    FPS,
    decode,
    first_frame,
    first_of,
    frame_rate,
    open_container,
    pixel_shape,
    promised_s,
    start_s,
    video_stream,
    with_times,
)
from datasets.media.deinterlace import deinterlaced
from datasets.media.keyframes import enter, has_index
from datasets.media.picture import Converter, OneShape, Picture

log = logging.getLogger(__name__)

MISSING_S = 0.5
"""Seconds; a video that ends this much earlier than its container says was cut off."""
MISSING_SHARE = 0.02
"""The same as a share of the length: some headers only estimate it."""
TINY_S = 1e-6
"""Seconds: well below any frame's duration, well above the rounding of floats."""

Timed = tuple[float, Any]
"""Seconds after the first video frame, and a decoded frame."""


@dataclass(frozen=True)
class Frame:
    """A decoded picture and its time."""

    index: int
    """At a constant rate `round(time_s * fps)`; otherwise the position among the frames
    requested, from 0."""
    time_s: float
    """Seconds after the first video frame: k / fps at a constant rate, otherwise the
    source's own."""
    picture: Picture
    """Converted to RGB only as far as needed. Repeated frames share it."""

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The whole picture, (h, w, 3). Repeated frames share it: copy it before writing into
        it."""
        return self.picture.rgb


def to_rgb(frame: Any) -> NDArray[np.uint8]:
    """(h, w, 3), turned as the display matrix says."""
    return Picture(frame).rgb


def read_frames(
    path: Path,
    fps: float | None = FPS,
    start_s: float = 0.0,
    end_s: float | None = None,
    threads: int = 0,
    on_cut_off: Callable[[float, float], None] | None = None,
) -> Iterator[Frame]:
    """Decode a video as a stream of pictures of one size; never more than two are held.

    If pixels are not square (DV, DVD), pictures are scaled, so that faces keep their shape;
    interlaced pictures are made whole; HDR is shown as SDR.

    Parts that are not used are never converted to RGB.

    Args:
        path: the file.
        fps: constant rate to resample to, by timestamps: at each moment the nearest frame
            of the source is shown. None gives every frame of the source with its own time.
        start_s, end_s: part of the video, in seconds after its first frame; `end_s` itself
            is outside.
        threads: threads of the decoder; 0 uses all cores. If every core has a video of its own,
            1 needs less memory and is no slower.
        on_cut_off: called at the end of a video that ends well before the end its container states,
            with its actual and its stated seconds.

    Raises:
        SourceError: the file cannot be opened, or none of its frames decoded. A damaged
            end only ends the stream, and is logged.
    """
    with open_container(path) as container:
        stream = video_stream(container, threads)
        # Before anything is decoded, since decoders overwrite these tags.
        tags = Tags.of(stream.codec_context)
        step = 1 / frame_rate(stream)
        source = _from(path, container, stream, start_s, threads)
        shown = source if fps is None else _resample(source, fps, step)
        last: Any = None
        converter, shape = Converter(tags), OneShape(pixel_shape(stream))
        count, end = 0, start_s
        for time, frame in shown:
            end = max(time + step, _end_of(stream, frame))
            if time < start_s - TINY_S:
                continue
            if end_s is not None and time >= end_s - TINY_S:
                return
            if frame is not last:
                last, picture = frame, shape(Picture(frame, converter))
            yield Frame(count if fps is None else round(time * fps), time, picture)
            count += 1
        promised = promised_s(stream)
        if promised > end + max(MISSING_S, MISSING_SHARE * promised):
            log.warning("%s ends at %.1f s of %.1f s", path.name, end, promised)
            if on_cut_off:
                on_cut_off(end, promised)


def _end_of(stream: Any, frame: Any) -> float:
    """Seconds from the container's own start to the end of a frame: if times jump, ours are
    closer together than what the container promises, and the last frame may be a long one."""
    if frame.time is None:
        return 0.0
    lasting = float(frame.duration * frame.time_base) if frame.duration else 0.0
    return float(frame.time) - start_s(stream) + lasting


def _from(
    path: Path, container: InputContainer, stream: Any, start_s: float, threads: int
) -> Iterator[Timed]:
    """Frames from the first one on, or from a little before `start_s`."""
    rate = frame_rate(stream)
    frames = with_times(deinterlaced(decode(container, stream)), rate)
    if start_s <= 2 / rate:
        zero, frame = first_of(frames)
        yield 0.0, frame
        yield from _since(zero, frames)
        return
    zero, has_times = _zero(path)
    # Two frames early, since the nearest frame may be before the start.
    target = zero + start_s - 2 / rate
    if has_times:
        entered = None
        if has_index(container):
            container.seek(int(target / stream.time_base), stream=stream)
        else:
            entered = enter(container, stream, target)
        if entered or has_index(container):
            found = decode(container, stream, entered.pts if entered else None)
            frames = with_times(deinterlaced(found), rate)
            first = next(frames, None)
            if first and first[0] <= target and first[1].time is not None:
                yield from _since(zero, chain([first], frames))
                return
    # Some containers cannot be entered in the middle, or only after the target.
    with open_container(path) as again:
        whole = deinterlaced(decode(again, video_stream(again, threads)))
        yield from _since(zero, with_times(whole, rate))


def _zero(path: Path) -> tuple[float, bool]:
    """Container time of the first video frame, and whether the container has times at all.

    Raises:
        SourceError: UNREADABLE if there is no frame.
    """
    facts = path.stat()
    return _zero_of(path.absolute(), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=16)
def _zero_of(path: Path, size: int, changed_ns: int) -> tuple[float, bool]:
    """Cached, since video that runs backwards is entered again and again."""
    with open_container(path) as container:
        time, frame = first_frame(container)
        return time, frame.time is not None


def _since(zero: float, frames: Iterable[Timed]) -> Iterator[Timed]:
    for time, frame in frames:
        yield time - zero, frame


def _resample(source: Iterator[Timed], fps: float, step: float) -> Iterator[Timed]:
    """For each k the source frame nearest to k / fps; the last one lasts its own duration,
    or one `step`."""
    index = 0
    earlier: Timed | None = None
    for time, frame in source:
        if earlier is None:
            index = max(0, ceil(time * fps - TINY_S))
        else:
            middle = (earlier[0] + time) / 2
            while index / fps < middle:
                yield index / fps, earlier[1]
                index += 1
        earlier = (time, frame)
    if earlier is not None:
        end = max(floor((earlier[0] + _lasting(earlier[1], step)) * fps + 0.5 + TINY_S), 1)
        for last in range(index, end):
            yield last / fps, earlier[1]


def _lasting(frame: Any, step: float) -> float:
    """Seconds for which a frame is shown; old containers claim nonsense, which `step` limits."""
    if frame.duration and frame.time_base:
        return min(float(frame.duration * frame.time_base), 2 * step)
    return step
