"""Joining the segments of a video, finished one after another, without encoding again."""

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from datasets.media.container import open_container, video_stream
from datasets.media.form import ALPHA_MODE
from datasets.media.sound_track import SoundTrack
from datasets.media.writer import CLOCK


def join_segments(
    target: Path,
    segments: Sequence[tuple[Path, float]],
    end_s: float,
    audio: Path | None = None,
    kind: str = "mp4",
) -> None:
    """Write the packets of several videos one after another, with another file's sound.

    Args:
        target: the file to write; it must not be one of the segments.
        segments: files that `VideoWriter` made with the same settings, and when each begins,
            seconds after the beginning of the first.
        end_s: end of the video; the sound is cut there.
        audio: a file whose sound is added, see `VideoWriter`; None: no sound.
        kind: container of the target and of the segments, see `datasets.media.output`.

    Raises:
        SourceError: `audio` has no sound, or a segment cannot be read.
    """
    options = {"fflags": "+bitexact"}
    if kind in ("mp4", "mov"):
        options["movie_timescale"] = str(CLOCK)
    container: Any = av.open(str(target.absolute()), "w", format=kind, options=options)
    sound: SoundTrack | None = None
    with container:
        stream = _stream_like(container, segments[0][0])
        try:
            sound = SoundTrack(audio, container, kind) if audio else None
            ahead = max(_ahead(path) for path, _ in segments)
            for path, begin_s in segments:
                for packet, shown_s in _placed(path, begin_s, ahead):
                    packet.stream = stream
                    container.mux(packet)
                    if sound:
                        sound.write_until(shown_s)
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


def _stream_like(container: Any, segment: Path) -> Any:
    with open_container(segment) as first:
        source = video_stream(first)
        stream = container.add_stream_from_template(source)
        # The template leaves these out: Matroska writes the rate, and that there is transparency.
        stream.codec_context.framerate = source.average_rate
        if ALPHA_MODE in source.metadata:
            stream.metadata[ALPHA_MODE] = source.metadata[ALPHA_MODE]
        return stream


def _placed(path: Path, begin_s: float, ahead: Fraction) -> Iterator[tuple[Any, float]]:
    """Packets of a segment that begins at a given time, and when each is shown.

    Decoding times are computed again, since Matroska does not store them, and since segments that
    need no reordering would begin later than others: in the order of the times at which pictures
    are shown, `ahead` seconds before.
    """
    packets = _packets(path)
    times = sorted(packet.pts for packet in packets)
    for packet, time in zip(packets, times, strict=True):
        base = packet.time_base
        shift = round(Fraction(begin_s) / base)
        packet.pts += shift
        packet.dts = time + shift - round(ahead / base)
        yield packet, float(packet.pts * base)


def _ahead(path: Path) -> Fraction:
    """Seconds by which decoding must be ahead so that nothing is shown before it is decoded."""
    packets = _packets(path)
    times = sorted(packet.pts for packet in packets)
    ticks = max(time - packet.pts for packet, time in zip(packets, times, strict=True))
    return Fraction(ticks) * packets[0].time_base


def _packets(path: Path) -> list[Any]:
    """A segment's packets in the order of decoding; it is a few seconds long."""
    with open_container(path) as container:
        return [packet for packet in container.demux(video_stream(container)) if packet.size]
