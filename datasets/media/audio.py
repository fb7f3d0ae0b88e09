"""Sound on the video's timeline: reading it, moving it, and storing it losslessly."""

import io
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from datasets.errors import Reason, SourceError
from datasets.media.container import SAMPLE_RATE, open_container, video_zero
from datasets.media.pcm import pcm
from datasets.media.sound_choice import (
    Mono,
    audio_stream,
    count_loud,
    describe_choice,
    language,
    mono,
)
from datasets.store.atomic import write_atomic


def read_audio(
    path: Path, rate: int = SAMPLE_RATE, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Mono audio whose first sample belongs to the first video frame.

    `datasets.media.sound_choice` decides which stream is heard and how its channels become one
    (surround sound is first mixed to stereo, its centre at -3 dB); gaps in the timestamps
    become silence.

    Args:
        path: a video or audio file; without video, time zero is the audio's own start.
        rate: samples per second of the result.
        duration_s: exact length of the result: cut, or filled with silence.

    Returns:
        (n,) float32 in [-1, 1].

    Raises:
        SourceError: NO_AUDIO if there is no audio or none of it can be decoded.
    """
    wanted = None if duration_s is None else round(duration_s * rate)
    with open_container(path) as container:
        stream = audio_stream(container)
        zero = video_zero(path) if container.streams.video else None
        pieces: list[Mono] = []
        for position, sound in mono(pcm(container, stream, rate, zero), rate):
            if wanted is not None and position >= wanted:
                break
            pieces.append((position, sound))
    if not pieces:
        raise SourceError(Reason.NO_AUDIO, "none of the audio can be decoded")
    length = wanted
    if length is None:
        length = max(0, *(position + len(sound) for position, sound in pieces))
    return np.clip(_lay_out(pieces, length), -1, 1)


class AudioWindow:
    """Mono sound of a video, read forward on demand; old samples can be dropped.

    Position 0 belongs to the first video frame. A context manager.

    Args:
        path: the video.
        rate: samples per second.

    Raises:
        SourceError: NO_AUDIO if there is no audio stream.
    """

    def __init__(self, path: Path, rate: int = SAMPLE_RATE) -> None:
        self._stack = ExitStack()
        container = self._stack.enter_context(open_container(path))
        try:
            stream = audio_stream(container)
            self.about = describe_choice(container)
            """Which of several streams this is; empty if there is only one."""
            self.language = language(stream)
            """What its container says about it."""
            zero = video_zero(path) if container.streams.video else None
            self._source = mono(pcm(container, stream, rate, zero), rate)
        except BaseException:
            self._stack.close()
            raise
        self._first = 0
        """Position of the first sample that is still held."""
        self._kept = np.zeros(0, np.float32)
        self._end = 0
        """Position after the last sample that was read; the buffer may be longer."""
        self._ahead: Mono | None = None

    def part(self, begin: int, count: int) -> NDArray[np.float32]:
        """`count` samples from position `begin` on, with silence before and after the sound.

        Raises:
            ValueError: the samples have been dropped.
        """
        if max(begin, 0) < self._first and begin + count > 0:
            raise ValueError(
                f"samples from {begin} on were dropped, the first one held is {self._first}"
            )
        self._read_to(begin + count)
        out = np.zeros(count, np.float32)
        low, high = max(begin, self._first), min(begin + count, self._end)
        if high > low:
            out[low - begin : high - begin] = self._kept[low - self._first : high - self._first]
        return np.clip(out, -1, 1, out=out)

    def forget(self, before: int) -> None:
        """Drop the samples before a position, even if they have not been read yet."""
        drop = before - self._first
        if drop > 0:
            self._kept = self._kept[drop:].copy()
            self._first += drop

    def _read_to(self, position: int) -> None:
        while self._end < position:
            piece = self._ahead or next(self._source, None)
            # A broken timestamp may put a piece hours ahead: the gap is not filled
            # until it is requested.
            if piece is None or piece[0] >= position:
                self._ahead = piece
                return
            self._ahead = None
            self._place(*piece)

    def _place(self, position: int, sound: NDArray[np.float32]) -> None:
        skip = max(0, self._first - position)
        sound, begin = sound[skip:], position + skip - self._first
        if not len(sound):
            return
        missing = begin + len(sound) - len(self._kept)
        if missing > 0:
            # Grown by more than needed, since pieces are short.
            room = max(missing, len(self._kept) // 2)
            self._kept = np.concatenate([self._kept, np.zeros(room, np.float32)])
        self._kept[begin : begin + len(sound)] = sound
        self._end = max(self._end, self._first + begin + len(sound))

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
        level: level of the root mean square; 1 is full scale.
        enough: reading stops there.

    Raises:
        SourceError: NO_AUDIO if there is no audio or none of it can be decoded.
    """
    with open_container(path) as container:
        pieces = pcm(container, audio_stream(container), SAMPLE_RATE, None)
        loud = count_loud((sound[None] for _, sound in mono(pieces, SAMPLE_RATE)), level, enough)
    if loud < 0:
        raise SourceError(Reason.NO_AUDIO, "none of the audio can be decoded")
    return loud


def _lay_out(pieces: list[Mono], length: int) -> NDArray[np.float32]:
    audio = np.zeros(length, np.float32)
    for position, sound in pieces:
        begin = max(0, -position)
        end = max(begin, min(len(sound), length - position))
        audio[position + begin : position + end] = sound[begin:end]
    return audio


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
