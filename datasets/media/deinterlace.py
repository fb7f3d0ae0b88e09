"""Deinterlacing: pictures recorded as two fields of alternating lines are made whole.

The fields are half a frame apart in time, so a moving mouth shows comb teeth. Each flagged frame
becomes one picture of its first field's moment (FFmpeg's bwdif); frames that are not flagged pass
unchanged, and as many come out as go in, at the same times.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import av
from av.filter import Graph

from datasets.media.colour import Tags

SMALLEST = (3, 4)
"""Fewest columns and lines that the filter accepts."""


def deinterlaced(frames: Iterable[Any]) -> Iterator[Any]:
    """The frames, with interlaced ones made whole."""
    weave: _Weave | None = None
    for frame in frames:
        if weave and weave.kind != _kind(frame):
            # Sizes and formats change in the middle of broadcasts.
            yield from weave.finish()
            weave = None
        if weave is None and frame.interlaced_frame and _can_be_filtered(frame):
            weave = _Weave(frame)
        if weave is None:
            yield frame
        else:
            yield from weave.add(frame)
    if weave:
        yield from weave.finish()


def _kind(frame: Any) -> tuple[Any, ...]:
    return frame.format.name, frame.width, frame.height, Tags.of(frame)


def _can_be_filtered(frame: Any) -> bool:
    return frame.width >= SMALLEST[0] and frame.height >= SMALLEST[1]


class _Weave:
    """The filter for frames of one kind."""

    def __init__(self, frame: Any) -> None:
        self.kind = _kind(frame)
        self._waiting: deque[Any] = deque()
        self._graph = Graph()
        # Other threads would only wait for the decoder's.
        self._graph.threads = 1
        source = self._graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base=str(frame.time_base or "1/1000"),
            pixel_aspect="1/1",
            colorspace=str(int(frame.colorspace)),
            range=str(int(frame.color_range)),
        )
        weave = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        self._graph.link_nodes(source, weave, self._graph.add("buffersink"))
        self._graph.configure()

    def add(self, frame: Any) -> Iterator[Any]:
        """Put in a frame and take out finished ones: each frame needs the next one."""
        self._waiting.append(frame)
        self._graph.push(frame)
        yield from self._finished()

    def finish(self) -> Iterator[Any]:
        """The frames that are still inside."""
        self._graph.push(None)
        yield from self._finished()

    def _finished(self) -> Iterator[Any]:
        while True:
            try:
                whole: Any = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            given = self._waiting.popleft()
            # The filter counts in halves of the time base, which may be unset.
            whole.pts, whole.time_base = given.pts, given.time_base
            whole.duration = given.duration
            yield whole
