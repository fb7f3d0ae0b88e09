"""A video in segments that were finished one after the other, joined without encoding again."""

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from datasets.media.container import open_container, video_stream
from datasets.media.sound_track import SoundTrack


def join_segments(
    target: Path, segments: Sequence[tuple[Path, float]], end_s: float, audio: Path | None = None
) -> None:
    """Write the packets of some videos one behind the other, with another file's sound.

    Args:
        target: the file to make; it must not be one of the segments.
        segments: files that `VideoWriter` made with the same settings, and when each begins,
            seconds after the beginning of the first.
        end_s: end of the video; the sound is cut there.
        audio: a file whose sound goes along, see `VideoWriter`; None: no sound.

    Raises:
        SourceError: `audio` has no sound, or a segment cannot be read.
    """
    container: Any = av.open(
        str(target.absolute()), "w", options={"fflags": "+bitexact", "movie_timescale": "90000"}
    )
    sound: SoundTrack | None = None
    with container:
        with open_container(segments[0][0]) as first:
            stream = container.add_stream_from_template(video_stream(first))
        try:
            sound = SoundTrack(audio, container) if audio else None
            last: Fraction | None = None
            # Short segments need less time for reordering; one clock of decoding has one delay.
            delays = [_delay(path) for path, _ in segments]
            for (path, begin_s), delay in zip(segments, delays, strict=True):
                for packet in _packets(path):
                    base = packet.time_base
                    shift = round(Fraction(begin_s) / base)
                    packet.pts += shift
                    packet.dts += shift - round((max(delays) - delay) / base)
                    # Encoders of a varying rate may begin a segment before the last one's end.
                    if last is not None and packet.dts * base <= last:
                        packet.dts = int(last / base) + 1
                    last = packet.dts * base
                    packet.stream = stream
                    shown = float(packet.pts * base)
                    container.mux(packet)
                    if sound:
                        sound.write_until(shown)
            if sound:
                sound.write_until(end_s)
        finally:
            if sound:
                sound.close()
    handle = os.open(target, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _delay(path: Path) -> Fraction:
    """Seconds by which a segment's decoding is ahead of what is shown."""
    first = next(_packets(path))
    return Fraction(first.pts - first.dts) * first.time_base


def _packets(path: Path) -> Iterator[Any]:
    with open_container(path) as container:
        for packet in container.demux(video_stream(container)):
            if packet.size:
                yield packet
