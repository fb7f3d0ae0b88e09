"""Another file's sound, pulled into a video in step with its pictures."""

from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

from datasets.media.container import open_container, video_zero
from datasets.media.pcm import Piece, pcm
from datasets.media.sound_choice import audio_stream

IN_MP4 = ("aac", "mp3", "mp3float", "alac", "ac3", "eac3")
COPIED = {
    "mp4": IN_MP4,
    "mov": (*IN_MP4, "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_s16be", "pcm_s24be"),
    "matroska": (*IN_MP4, "flac", "opus", "libopus", "vorbis", "libvorbis", "dca", "pcm_s16le"),
    "webm": ("opus", "libopus", "vorbis", "libvorbis"),
}
"""Codecs that containers can hold unchanged."""
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
OPUS_BITS = 96_000
"""Bits per second and channel."""
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
AAC_BITS = (96_000, 5.0)
"""Most bits per second and channel, and most bits per sample."""
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
"""Numbers of channels that are kept; others are mixed to stereo."""

Packets = Generator[tuple[float, Any], None, None]
"""Seconds after time zero, and a packet."""


class SoundTrack:
    """The sound of `path` from its own first video frame (or its beginning) on.

    Copied if the container can hold it, otherwise AAC (in WebM Opus) at the same rate (or the
    nearest possible one) with the same channels.

    Args:
        path: the file with the sound.
        output: the container to write to.
        kind: its name, one of `COPIED`.

    Raises:
        SourceError: the file has no sound.
    """

    def __init__(self, path: Path, output: OutputContainer, kind: str = "mp4") -> None:
        self.output = output
        self.kind = kind
        self.opening = open_container(path)
        self.container = self.opening.__enter__()
        try:
            self.source = audio_stream(self.container)
            self.zero = video_zero(path) if self.container.streams.video else None
            copied = self.source.codec_context.name in COPIED[kind]
            self.stream: Any = (
                output.add_stream_from_template(self.source) if copied else self._encoder()
            )
            self.packets: Packets = self._copied() if copied else self._encoded()
        except BaseException:
            self.opening.__exit__(None, None, None)
            raise
        self.waiting: tuple[float, Any] | None = None

    def write_until(self, time_s: float) -> None:
        """Mux the sound before `time_s`."""
        while True:
            if self.waiting is None:
                self.waiting = next(self.packets, None)
            if self.waiting is None or self.waiting[0] >= time_s:
                return
            self.output.mux(self.waiting[1])
            self.waiting = None

    def close(self) -> None:
        """Close the source."""
        self.packets.close()
        self.opening.__exit__(None, None, None)

    def _copied(self) -> Packets:
        base = self.source.time_base
        offset: int | None = None
        if self.zero is not None:
            offset = round(self.zero / base)
        last: int | None = None
        for packet in self.container.demux(self.source):
            if packet.pts is None or not packet.size:
                continue
            if offset is None:
                # Packets before the stream's start only prime the decoder.
                offset = max(packet.pts, self.source.start_time or 0)
            # The packet before the first audible one primes the decoder.
            if packet.pts + 2 * (packet.duration or 0) <= offset:
                continue
            packet.pts -= offset
            if last is not None and packet.pts <= last:
                continue
            last = packet.pts
            packet.dts = packet.pts
            packet.stream = self.stream
            yield float(packet.pts * base), packet

    def _encoder(self) -> Any:
        own = self.source.codec_context
        opus = self.kind == "webm"
        rates = OPUS_RATES if opus else AAC_RATES
        rate = next((rate for rate in rates if rate >= own.sample_rate), rates[-1])
        stream: Any = self.output.add_stream("libopus" if opus else "aac", rate=rate)
        context = stream.codec_context
        # By number, since a wav file need not say which channels it has.
        context.layout = LAYOUTS.get(own.layout.nb_channels, "stereo")
        bits = OPUS_BITS if opus else min(AAC_BITS[0], AAC_BITS[1] * rate)
        context.bit_rate = round(bits * context.layout.nb_channels)
        context.thread_count = 1
        return stream

    def _encoded(self) -> Packets:
        context = self.stream.codec_context
        rate, layout = self.stream.rate, context.layout.name
        cursor = 0
        for part in gapless(pcm(self.container, self.source, rate, self.zero, layout), rate):
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate = rate
            frame.time_base = Fraction(1, rate)
            frame.pts = cursor
            cursor += part.shape[1]
            yield from self._tagged(context.encode(frame))
        yield from self._tagged(context.encode(None))

    def _tagged(self, packets: list[Any]) -> Packets:
        for packet in packets:
            packet.stream = self.stream
            yield float(packet.pts * packet.time_base), packet


def gapless(pieces: Iterator[Piece], rate: int) -> Iterator[NDArray[np.float32]]:
    """The pieces (channels, n) from position 0 on, with silence in between."""
    cursor = 0
    for position, sound in pieces:
        while position > cursor:
            count = min(position - cursor, rate)
            yield np.zeros((len(sound), count), np.float32)
            cursor += count
        kept = sound[:, cursor - position :]
        if kept.shape[1]:
            yield np.ascontiguousarray(kept)
            cursor += kept.shape[1]
