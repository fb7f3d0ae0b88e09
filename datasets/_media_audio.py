"""Sound on the video's timeline: reading it, moving it, and storing it losslessly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from datasets._media_open import (
    LONGEST_GAP_S,
    LONGEST_REPEAT_S,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    audio_stream,
    decoded,
    is_sound,
    opened,
    video_zero,
)
from datasets.errors import Reason, SourceError

TOLERANCE_S = 0.02
"""Audio whose timestamps are further from the end of what came before is placed anew."""

Piece = tuple[int, NDArray[np.float32]]
"""Position of the first sample after time zero (it may be negative), and (channels, n)."""


def read_audio(
    path: Path, rate: int = SAMPLE_RATE, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Mono audio whose first sample belongs to the first video frame.

    Channels are averaged (those of surround sound after a mix to stereo); holes in the
    timestamps become silence.

    Args:
        path: a video or audio file; without video, time zero is the audio's own start.
        rate: samples per second of the result.
        duration_s: exact length wanted: cut, or filled with silence.

    Returns:
        (n,) float32 in [-1, 1].

    Raises:
        SourceError: NO_AUDIO where there is none or none of it can be decoded.
    """
    wanted = None if duration_s is None else round(duration_s * rate)
    with opened(path) as container:
        stream = audio_stream(container)
        zero = video_zero(path) if container.streams.video else None
        pieces: list[Piece] = []
        for position, sound in pcm(container, stream, rate, zero):
            if wanted is not None and position >= wanted:
                break
            pieces.append((position, sound.mean(axis=0)))
    if not pieces:
        raise SourceError(Reason.NO_AUDIO, "none of the audio can be decoded")
    length = wanted
    if length is None:
        length = max(0, *(position + len(sound) for position, sound in pieces))
    return np.clip(_laid_out(pieces, length), -1, 1)


def _laid_out(pieces: list[Piece], length: int) -> NDArray[np.float32]:
    audio = np.zeros(length, np.float32)
    for position, sound in pieces:
        begin = max(0, -position)
        end = max(begin, min(len(sound), length - position))
        audio[position + begin : position + end] = sound[begin:end]
    return audio


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
        zero: container time of position 0; None for the stream's own beginning.
        layout: channels of the result; None keeps mono and stereo and mixes more to stereo.
    """
    run: _Run | None = None
    shift = 0.0
    for frame in decoded(container, stream):
        if not frame.samples or not is_sound(frame.sample_rate, frame.layout.nb_channels):
            continue
        time = frame.time
        if time is None:
            time = run.end_s if run else 0.0
        else:
            time += shift
        if run and not -LONGEST_REPEAT_S <= time - run.end_s <= LONGEST_GAP_S:
            shift += run.end_s - time
            time = run.end_s
        zero = time if zero is None else zero
        if run is None or not run.continues(frame, time):
            if run:
                yield from run.finish()
            run = _Run(frame, time, zero, rate, layout)
        yield from run.add(frame)
    if run:
        yield from run.finish()


class _Run:
    """Frames that follow each other without a break, and their resampler."""

    def __init__(self, frame: Any, time: float, zero: float, rate: int, layout: str | None) -> None:
        own = frame.layout
        target = layout or (own.name if own.nb_channels <= 2 else "stereo")
        self.resampler = av.AudioResampler(format="fltp", layout=target, rate=rate)
        self.format = _format(frame)
        # Coarse clocks (AVI counts whole packets) cannot say it more finely.
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
        """What the resampler still holds."""
        yield from self._placed(self.resampler.resample(None))

    def _placed(self, frames: list[Any]) -> Iterator[Piece]:
        for frame in frames:
            sound = frame.to_ndarray()
            if sound.shape[1]:
                yield self.position, sound
                self.position += sound.shape[1]


def _format(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def fitted(audio: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut to `length` samples, or filled with silence."""
    if len(audio) >= length:
        return audio[:length]
    return np.concatenate([audio, np.zeros(length - len(audio), audio.dtype)])


def shift_audio(
    audio: NDArray[np.float32], frames: float, per_frame: int = SAMPLES_PER_FRAME
) -> NDArray[np.float32]:
    """Undo a delay of the audio by moving its samples; the length stays.

    Args:
        audio: (n,).
        frames: how late the audio is, in frames at 25 fps; negative: early.
        per_frame: samples per frame.
    """
    late = round(frames * per_frame)
    if late >= 0:
        return fitted(audio[late:], len(audio))
    return fitted(np.concatenate([np.zeros(-late, audio.dtype), audio]), len(audio))


def write_flac(path: Path, audio: NDArray[np.float32], rate: int) -> None:
    """16-bit PCM, losslessly packed: the same bytes on every run.

    Args:
        path: the file to make; it appears once it is complete.
        audio: (n,) in [-1, 1].
        rate: samples per second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        soundfile.write(temporary, np.clip(audio, -1, 1), rate, format="FLAC", subtype="PCM_16")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
