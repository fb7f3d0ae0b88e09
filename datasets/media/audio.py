"""Sound on the video's timeline: reading it, moving it, and storing it losslessly."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from datasets.errors import Reason, SourceError
from datasets.media.container import (
    LONGEST_GAP_S,
    LONGEST_REPEAT_S,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    audio_stream,
    decode,
    is_sound,
    open_container,
    video_zero,
)
from datasets.media.joins import Joined, joins
from datasets.store.atomic import write_atomic

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
    with open_container(path) as container:
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
    return np.clip(_lay_out(pieces, length), -1, 1)


class AudioWindow:
    """Mono sound of a video, read forward as it is asked for; old samples can be let go.

    Position 0 belongs to the first video frame. A context manager.

    Args:
        path: the video.
        rate: samples per second.

    Raises:
        SourceError: NO_AUDIO where there is no audio stream.
    """

    def __init__(self, path: Path, rate: int = SAMPLE_RATE) -> None:
        self._stack = ExitStack()
        container = self._stack.enter_context(open_container(path))
        try:
            stream = audio_stream(container)
            zero = video_zero(path) if container.streams.video else None
            self._source = pcm(container, stream, rate, zero)
        except BaseException:
            self._stack.close()
            raise
        self._first = 0
        """Position of the first sample that is kept."""
        self._kept = np.zeros(0, np.float32)
        self._end = 0
        """Position behind the last sample that was read; the buffer may be longer."""
        self._ahead: Piece | None = None

    def part(self, begin: int, count: int) -> NDArray[np.float32]:
        """`count` samples from position `begin` on; before and behind the sound is silence.

        Raises:
            ValueError: samples that were let go are asked for.
        """
        if max(begin, 0) < self._first and begin + count > 0:
            raise ValueError(f"samples from {begin} on are gone, kept are those from {self._first}")
        self._read_to(begin + count)
        out = np.zeros(count, np.float32)
        low, high = max(begin, self._first), min(begin + count, self._end)
        if high > low:
            out[low - begin : high - begin] = self._kept[low - self._first : high - self._first]
        return np.clip(out, -1, 1, out=out)

    def forget(self, before: int) -> None:
        """Let go of samples before a position, also of those that were not read yet."""
        drop = before - self._first
        if drop > 0:
            self._kept = self._kept[drop:].copy()
            self._first += drop

    def _read_to(self, position: int) -> None:
        while self._end < position:
            piece = self._ahead or next(self._source, None)
            # A broken timestamp may put a piece hours ahead: nothing is laid out up to there
            # before somebody asks for it.
            if piece is None or piece[0] >= position:
                self._ahead = piece
                return
            self._ahead = None
            self._place(*piece)

    def _place(self, position: int, sound: NDArray[np.float32]) -> None:
        mono = sound.mean(axis=0)
        skip = max(0, self._first - position)
        mono, begin = mono[skip:], position + skip - self._first
        if not len(mono):
            return
        missing = begin + len(mono) - len(self._kept)
        if missing > 0:
            # Grown by more than what is needed, since pieces are short.
            room = max(missing, len(self._kept) // 2)
            self._kept = np.concatenate([self._kept, np.zeros(room, np.float32)])
        self._kept[begin : begin + len(mono)] = mono
        self._end = max(self._end, self._first + begin + len(mono))

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __enter__(self) -> "AudioWindow":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def loud_frames(path: Path, level: float, enough: int) -> int:
    """How many frames (of 1/25 s) of a file's sound reach a level, up to `enough`.

    Args:
        path: a video or audio file.
        level: of the root mean square, 1 is full scale.
        enough: reading stops there.

    Raises:
        SourceError: NO_AUDIO where there is none or none of it can be decoded.
    """
    loud = heard = 0
    rest = np.zeros(0, np.float32)
    with open_container(path) as container:
        for _, sound in pcm(container, audio_stream(container), SAMPLE_RATE, None):
            heard += sound.shape[1]
            rest = np.concatenate([rest, sound.mean(axis=0)])
            whole = len(rest) // SAMPLES_PER_FRAME
            pieces = rest[: whole * SAMPLES_PER_FRAME].reshape(whole, SAMPLES_PER_FRAME)
            power = np.einsum("fs,fs->f", pieces, pieces) / SAMPLES_PER_FRAME
            loud += int((power >= level**2).sum())
            rest = rest[whole * SAMPLES_PER_FRAME :]
            if loud >= enough:
                return enough
    if not heard:
        raise SourceError(Reason.NO_AUDIO, "none of the audio can be decoded")
    return loud


def _lay_out(pieces: list[Piece], length: int) -> NDArray[np.float32]:
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


def fit_length(audio: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut to `length` samples, or filled with silence."""
    if len(audio) >= length:
        return audio[:length]
    return np.concatenate([audio, np.zeros(length - len(audio), audio.dtype)])


def flac_bytes(audio: NDArray[np.float32], rate: int) -> bytes:
    """16-bit PCM, losslessly packed as FLAC: the same bytes on every run.

    Args:
        audio: (n,) in [-1, 1].
        rate: samples per second.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(audio, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def write_flac(path: Path, audio: NDArray[np.float32], rate: int) -> None:
    """`flac_bytes` as a file, which appears once it is complete."""
    write_atomic(path, flac_bytes(audio, rate))
