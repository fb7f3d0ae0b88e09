"""A stretch of an encoded video, without encoding it again.

The packets are copied, so every picture stays what it was, bit for bit. A stretch can begin at a
key frame only, and end where no picture that is kept needs one that is not.
"""

import io
from dataclasses import dataclass
from typing import Any

import av

from datasets.media.writer import CLOCK


@dataclass(frozen=True)
class Trimmed:
    """A stretch of a video."""

    video: bytes
    """As mp4."""
    first: int
    """Number of its first picture in the whole video."""
    stop: int
    """The number after its last one's."""


def trim(video: bytes, first: int, stop: int) -> Trimmed | None:
    """The longest stretch within some pictures of an H.264 mp4 with closed groups of pictures.

    Args:
        video: as `datasets.media.VideoWriter` makes it, at a constant rate.
        first, stop: number of the first picture and that after the last one's, from 0.

    Returns:
        The stretch, with the same bytes on every run; None if no key frame lies within.
    """
    with av.open(io.BytesIO(video), "r", format="mp4") as source:
        stream: Any = source.streams.video[0]
        packets: list[Any] = [packet for packet in source.demux(stream) if packet.size]
        ticks = round(1 / (stream.average_rate * stream.time_base))
        numbers = [round(packet.pts / ticks) for packet in packets]
        keys = [at for at, packet in enumerate(packets) if packet.is_keyframe]
        begin = next((at for at in keys if numbers[at] >= first), None)
        if begin is None or numbers[begin] >= stop:
            return None
        kept = _whole(numbers[begin:], stop)
        chosen = packets[begin : begin + kept]
        buffer = io.BytesIO()
        options = {"fflags": "+bitexact", "movie_timescale": str(CLOCK)}
        with av.open(buffer, "w", format="mp4", options=options) as target:
            made: Any = target.add_stream_from_template(stream)
            made.time_base = stream.time_base
            for packet in chosen:
                packet.pts -= numbers[begin] * ticks
                packet.dts -= numbers[begin] * ticks
                packet.stream = made
                target.mux(packet)
        return Trimmed(buffer.getvalue(), numbers[begin], numbers[begin] + kept)


def _whole(numbers: list[int], stop: int) -> int:
    """How many packets, in the order of decoding, make the longest run without a hole before
    `stop`."""
    best, last = 0, -1
    for count, number in enumerate(numbers, 1):
        if number >= stop:
            break
        last = max(last, number)
        if last - numbers[0] == count - 1:
            best = count
    return best
