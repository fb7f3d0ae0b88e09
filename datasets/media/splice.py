"""One file's sound followed by another's."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from datasets.media.container import open_container, video_zero
from datasets.media.pcm import pcm
from datasets.media.sound_choice import audio_stream
from datasets.media.sound_track import gapless

RATE = 48000
FADE_S = 0.01
"""Seconds over which one sound fades out and the other in, so that the splice does not click."""


def splice_sound(target: Path, first: Path, second: Path | None, at_s: float, end_s: float) -> None:
    """Write a FLAC file: `first` up to `at_s`, then what `second` has from there to `end_s`.

    Both count from their first video frame, or from their beginning without one.

    Args:
        target: 16 bits, 48 kHz, two channels.
        first, second: files with sound; None: silence.
        at_s, end_s: seconds.

    Raises:
        SourceError: one has no sound.
    """
    fade = round(FADE_S * RATE)
    begin, end = round(at_s * RATE), round(end_s * RATE)
    with soundfile.SoundFile(
        target, "w", samplerate=RATE, channels=2, format="FLAC", subtype="PCM_16"
    ) as out:
        before = _faded(_samples(first, 0, begin), begin, fade, into=False)
        _write(out, before, begin)
        after = _samples(second, begin, end) if second else iter(())
        _write(out, _faded(after, end - begin, fade, into=True), end - begin)


def _samples(path: Path, begin: int, end: int) -> Iterator[NDArray[np.float32]]:
    """Sound (2, n) of a file from one position to another."""
    position = 0
    with open_container(path) as container:
        zero = video_zero(path) if container.streams.video else None
        source = pcm(container, audio_stream(container), RATE, zero)
        for part in gapless(source, RATE):
            # Not by the resampler, which makes mono quieter when it becomes stereo.
            part = np.broadcast_to(part, (2, part.shape[1]))
            kept = part[:, max(0, begin - position) : max(0, end - position)]
            position += part.shape[1]
            if kept.shape[1]:
                yield kept
            if position >= end:
                return


def _faded(
    parts: Iterator[NDArray[np.float32]], length: int, fade: int, into: bool
) -> Iterator[NDArray[np.float32]]:
    """Sound of `length` samples, faded in at its beginning or out at its end."""
    position = 0
    for part in parts:
        at = np.arange(position, position + part.shape[1])
        gain = (at + 1 if into else length - at) / (fade + 1)
        yield part * np.clip(gain, 0, 1).astype(np.float32)
        position += part.shape[1]


def _write(out: soundfile.SoundFile, parts: Iterator[NDArray[np.float32]], length: int) -> None:
    """Exactly `length` samples, filled up with silence if there are too few."""
    written = 0
    for part in parts:
        out.write(np.clip(part.T, -1, 1))
        written += part.shape[1]
    while written < length:
        count = min(RATE, length - written)
        out.write(np.zeros((count, 2), np.float32))
        written += count
