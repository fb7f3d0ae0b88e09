"""Sounds of several files put together into one."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
BLOCK = RATE // 2
"""Samples mixed at once."""


@dataclass(frozen=True)
class Spoken:
    """A part of a file that is heard in a mix, in place of what is under it."""

    path: Path
    begin_s: float
    """When it begins in the mix."""
    end_s: float
    """When it ends there; what the file lacks is silence."""
    from_s: float = 0.0
    """Where it begins in the file."""
    for_s: float | None = None
    """How much of the file is heard, before silence; None: as much as fits."""

    @property
    def edges(self) -> tuple[int, int, int]:
        """Samples of the mix: where it begins, where its file is no longer heard, where it ends."""
        begin, end = round(self.begin_s * RATE), round(self.end_s * RATE)
        heard = end if self.for_s is None else round((self.begin_s + self.for_s) * RATE)
        return begin, min(heard, end), end


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
    mix_sound(target, second, [Spoken(first, 0.0, at_s)], end_s)


def mix_sound(
    target: Path,
    under: Path | None,
    spoken: Sequence[Spoken],
    end_s: float,
    under_from_s: float = 0,
) -> None:
    """Write a FLAC file: a sound, replaced by others for parts of the time.

    One fades into the other. Others that are heard at the same time are added.

    Args:
        target: 16 bits, 48 kHz, two channels.
        under: file with the sound between the others; None: silence.
        spoken: the others, in any order.
        end_s: length of the result, seconds.
        under_from_s: where the result begins in `under`, seconds after its first video frame.

    Raises:
        SourceError: a file has no sound.
    """
    fade, length = round(FADE_S * RATE), round(end_s * RATE)
    spans = [each.edges for each in spoken]
    with (
        ExitStack() as stack,
        soundfile.SoundFile(
            target, "w", samplerate=RATE, channels=2, format="FLAC", subtype="PCM_16"
        ) as out,
    ):
        below = stack.enter_context(_Reader(under, under_from_s)) if under else None
        voices = [stack.enter_context(_Reader(each.path, each.from_s)) for each in spoken]
        for start in range(0, length, BLOCK):
            at = np.arange(start, min(start + BLOCK, length))
            mixed = np.zeros((2, len(at)), np.float32)
            gain = np.ones(len(at))
            for (begin, heard, end), voice in zip(spans, voices, strict=True):
                gain *= np.clip(np.maximum(begin - at, at - end + 1) / (fade + 1), 0, 1)
                inside = at[(at >= begin) & (at < heard)]
                if len(inside):
                    mixed[:, inside - start] += voice.read(len(inside)) * _edges(
                        inside, begin, heard, fade
                    )
            if below:
                mixed += below.read(len(at)) * gain.astype(np.float32)
            out.write(np.clip(mixed.T, -1, 1))


def _edges(at: NDArray[np.int64], begin: int, end: int, fade: int) -> NDArray[np.float32]:
    """How loud a part is that fades in and out; nothing is before the first sample of all."""
    gain = (end - at) / (fade + 1)
    if begin:
        gain = np.minimum(gain, (at - begin + 1) / (fade + 1))
    return np.clip(gain, 0, 1).astype(np.float32)


class _Reader:
    """Sound (2, n) of a file from some moment on, as many samples as are asked for.

    A context manager.
    """

    def __init__(self, path: Path, begin_s: float) -> None:
        self._source = _samples(path, round(begin_s * RATE))
        self._left = np.zeros((2, 0), np.float32)

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()

    def read(self, count: int) -> NDArray[np.float32]:
        """(2, count), filled up with silence behind the end."""
        parts = [self._left]
        have = self._left.shape[1]
        while have < count:
            part = next(self._source, None)
            if part is None:
                part = np.zeros((2, count - have), np.float32)
            parts.append(part)
            have += part.shape[1]
        whole = np.concatenate(parts, axis=1)
        self._left = whole[:, count:]
        return whole[:, :count]


def _samples(path: Path, begin: int) -> Generator[NDArray[np.float32], None, None]:
    """Sound (2, n) of a file from one position on."""
    position = 0
    with open_container(path) as container:
        zero = video_zero(path) if container.streams.video else None
        source = pcm(container, audio_stream(container), RATE, zero)
        for part in gapless(source, RATE):
            # Not by the resampler, which makes mono quieter when it becomes stereo.
            wide = np.broadcast_to(part, (2, part.shape[1]))
            kept = wide[:, max(0, begin - position) :]
            position += part.shape[1]
            if kept.shape[1]:
                yield kept
