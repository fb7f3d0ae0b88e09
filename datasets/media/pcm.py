"""From the packets of an audio stream to samples on one timeline."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from datasets.media.container import LONGEST_GAP_S, LONGEST_REPEAT_S, decode, is_sound
from datasets.media.joins import Joined, joins

TOLERANCE_S = 0.02
"""Seconds; audio whose timestamp is further from the end of the earlier audio is placed by it."""

Piece = tuple[int, NDArray[np.float32]]
"""Position of the first sample after time zero (it may be negative), and (channels, n)."""


def pcm(
    container: InputContainer,
    stream: Any,
    rate: int,
    zero: float | None,
    layout: str | None = None,
) -> Iterator[Piece]:
    """Decode and resample an audio stream piece by piece.

    Args:
        rate: samples per second of the result.
        zero: container time of position 0; None means the stream's own beginning.
        layout: channels of the result; None keeps mono and stereo and mixes more to stereo.
    """
    run: _Run | None = None
    shift = 0.0
    joined = Joined(joins(container) if zero is not None else ())
    for frame in decode(container, stream):
        if not frame.samples or not is_sound(frame.sample_rate, frame.layout.nb_channels):
            continue
        time = frame.time
        if time is None:
            time = run.end_s if run else 0.0
        else:
            time += shift
        if run and not -LONGEST_REPEAT_S <= time - run.end_s <= LONGEST_GAP_S:
            as_the_picture = joined.shift(run.end_s - shift, time - shift)
            if as_the_picture is None:
                as_the_picture = shift + run.end_s - time
            time += as_the_picture - shift
            shift = as_the_picture
        zero = time if zero is None else zero
        if run is None or not run.continues(frame, time):
            if run:
                yield from run.finish()
            run = _Run(frame, time, zero, rate, layout)
        yield from run.add(frame)
    if run:
        yield from run.finish()


class _Run:
    """Consecutive frames without a break, and their resampler."""

    def __init__(self, frame: Any, time: float, zero: float, rate: int, layout: str | None) -> None:
        own = frame.layout
        target = layout or (own.name if own.nb_channels <= 2 else "stereo")
        self.resampler = av.AudioResampler(format="fltp", layout=target, rate=rate)
        self.format = _format(frame)
        # Coarse clocks (AVI counts whole packets) are no more precise.
        ticks = 2 * float(frame.time_base) if frame.time_base else 0.0
        self.tolerance = max(TOLERANCE_S, ticks)
        self.position = round((time - zero) * rate)
        self.end_s = time

    def continues(self, frame: Any, time: float) -> bool:
        """Whether a frame at `time` seconds belongs to this run."""
        return _format(frame) == self.format and abs(time - self.end_s) <= self.tolerance

    def add(self, frame: Any) -> Iterator[Piece]:
        self.end_s += frame.samples / frame.sample_rate
        # Positions are counted here: jitter in the timestamps must not reach the samples.
        frame.pts = None
        yield from self._placed(self.resampler.resample(frame))

    def finish(self) -> Iterator[Piece]:
        """The samples that the resampler still holds."""
        yield from self._placed(self.resampler.resample(None))

    def _placed(self, frames: list[Any]) -> Iterator[Piece]:
        for frame in frames:
            sound = frame.to_ndarray()
            if sound.shape[1]:
                yield self.position, sound
                self.position += sound.shape[1]


def _format(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
