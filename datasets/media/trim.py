"""A stretch of an encoded video, of which no more than a beginning is encoded again.

The packets from the first key frame on are copied, so these pictures stay what they were, bit for
bit. Those before it are decoded and encoded by the same encoder. A stretch ends where no picture
that is kept needs one that is not.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from datasets.media.colour import Tags, colours_of, to_rgb
from datasets.media.writer import CLOCK

Encoder = Callable[[Sequence[np.ndarray]], bytes]
"""Makes an mp4 of pictures, uint8 (h, w, 3), as the whole video was made."""


@dataclass(frozen=True)
class Trimmed:
    """A stretch of a video."""

    video: bytes
    """As mp4."""
    first: int
    """Number of its first picture in the whole video."""
    stop: int
    """The number after its last one's."""


def trim(video: bytes, first: int, stop: int, encode: Encoder) -> Trimmed | None:
    """The longest stretch within some pictures of an H.264 mp4 with closed groups of pictures.

    Args:
        video: as `encode` would make it, at a constant rate.
        first, stop: number of the first picture and that after the last one's, from 0.
        encode: makes the pictures before the first key frame again. If its video has other
            parameters than the whole one, the stretch begins at the key frame.

    Returns:
        The stretch, with the same bytes on every run; None if no key frame lies within.
    """
    whole = _Packets.of(video)
    begin = next((at for at in whole.keys if whole.numbers[at] >= first), None)
    if begin is None or whole.numbers[begin] >= stop:
        return None
    head: list[Any] = []
    if whole.numbers[begin] > first:
        again = _Packets.of(encode(_pictures(video, first, whole.numbers[begin])))
        if again.parameters == whole.parameters and again.keys[:1] == [0]:
            head = again.packets
    start = whole.numbers[begin] - len(head)
    kept = _before(whole.numbers[begin:], stop)
    buffer = io.BytesIO()
    options = {"fflags": "+bitexact", "movie_timescale": str(CLOCK)}
    with (
        av.open(io.BytesIO(video), "r", format="mp4") as source,
        av.open(buffer, "w", format="mp4", options=options) as target,
    ):
        made: Any = target.add_stream_from_template(source.streams.video[0])
        made.time_base = source.streams.video[0].time_base
        for packets, moved in ((head, 0), (whole.packets[begin : begin + kept], start)):
            for packet in packets:
                packet.pts -= moved * whole.ticks
                packet.dts -= moved * whole.ticks
                packet.stream = made
                target.mux(packet)
    return Trimmed(buffer.getvalue(), start, whole.numbers[begin] + kept)


@dataclass(frozen=True)
class _Packets:
    """The packets of a video, in the order of decoding."""

    packets: list[Any]
    numbers: list[int]
    """Of the picture in each."""
    keys: list[int]
    """Which packets are key frames."""
    ticks: int
    """Of the stream's clock for each picture."""
    parameters: bytes
    """What a decoder must know before the first packet."""

    @classmethod
    def of(cls, video: bytes) -> "_Packets":
        with av.open(io.BytesIO(video), "r", format="mp4") as source:
            stream: Any = source.streams.video[0]
            packets: list[Any] = [packet for packet in source.demux(stream) if packet.size]
            ticks = round(1 / (stream.average_rate * stream.time_base))
            return cls(
                packets,
                [round(packet.pts / ticks) for packet in packets],
                [at for at, packet in enumerate(packets) if packet.is_keyframe],
                ticks,
                bytes(stream.codec_context.extradata or b""),
            )


def _pictures(video: bytes, first: int, stop: int) -> list[np.ndarray]:
    """Some pictures, RGB uint8 (h, w, 3)."""
    with av.open(io.BytesIO(video), "r", format="mp4") as source:
        stream: Any = source.streams.video[0]
        ticks = round(1 / (stream.average_rate * stream.time_base))
        source.seek(first * ticks, stream=stream)
        tags, reformatter = Tags.of(stream.codec_context), VideoReformatter()
        shown = []
        for frame in source.decode(stream):
            number = round(frame.pts / ticks)
            if number >= stop:
                break
            if number >= first:
                shown.append(to_rgb(frame, colours_of(frame, tags), reformatter))
        return shown


def _before(numbers: list[int], stop: int) -> int:
    """How many packets, in the order of decoding, show pictures before `stop` only.

    A picture that others between it and an earlier one need is decoded before them, so those that
    come before the first one from `stop` on have no hole.
    """
    return next((at for at, number in enumerate(numbers) if number >= stop), len(numbers))
