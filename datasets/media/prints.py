"""What a recording looks and sounds like, in a few hundred bytes that survive another encoding.

Pictures become signs of differences between neighbouring cells of a coarse grid (a difference
hash); sound becomes signs of differences between neighbouring bands, in time and frequency
(Haitsma and Kalker, A Highly Robust Audio Fingerprinting System, ISMIR 2002). Two recordings are
the same only if both agree: people filmed in one studio look alike but say different things, and
dubbed or lip-synced videos sound alike but look different.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.media.container import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

PICTURE_STEP = 10
"""Frames at 25 fps from one looked-at picture to the next."""
GRID = 8
"""Signs of a picture in each direction, so 2 x 8 x 8 in all."""
MOST_PICTURES = 64
"""Pictures of a long recording are thinned out: the print does not grow with its length."""
WINDOW = 4096
"""Samples of a spectrum."""
BANDS = 16
LOW_HZ, HIGH_HZ = 300.0, 3000.0
"""Range of the bands: what the poorest encodings of speech keep."""
APART = 2
"""Frames between the two spectra that are compared."""
MOST_SOUNDS = 768
BURST = 16
"""Frames of sound that stay together when a long recording's are thinned out, so that prints
can be shifted against each other."""
MOST_LAG = 3
"""Frames by which encoders may shift sound against the picture."""
QUIET_DB = 30.0
"""Decibels below a recording's loudest frame; what is quieter holds only noise of the encoder."""
ENOUGH_SOUNDS = 25
"""Frames that must be loud for a comparison to say anything."""
LENGTH_S, LENGTH_SHARE = 0.25, 0.01
"""Seconds, and share, by which lengths of one recording may differ."""

SAME_PICTURES, SAME_SOUND = 0.15, 0.25
"""Largest distances of one recording in two encodings; `python -m benchmarks.duplicates` measures
both kinds."""
CONTOUR = 32
"""Steps of a recording's loudness."""
SAME_CONTOUR_DB = 6.0
"""Mean difference of loudness, decibels, above which recordings need no closer look."""

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class Print:
    """A recording's print."""

    frames: int
    """Length at 25 fps."""
    pictures: Bits
    """(n, 2 x GRID x GRID / 8), packed signs of every `picture_stride`-th looked-at picture."""
    picture_stride: int
    sounds: Bits
    """(m, BANDS / 8), packed signs of the frames of each `sound_stride`-th burst."""
    levels: NDArray[np.uint8]
    """(m,) decibels above -100 dBFS."""
    sound_stride: int

    def text(self) -> str:
        """The print as text, for a journal."""
        head = np.array(
            [self.frames, self.picture_stride, len(self.pictures), self.sound_stride], "<u4"
        )
        parts = (head, self.pictures, self.levels, self.sounds)
        return base64.b85encode(b"".join(part.tobytes() for part in parts)).decode("ascii")

    @classmethod
    def of(cls, text: str) -> "Print | None":
        """The print of its text; None for an empty one.

        Raises:
            ValueError: it is not the text of a print.
        """
        if not text:
            return None
        data = base64.b85decode(text)
        frames, picture_stride, pictures, sound_stride = np.frombuffer(data, "<u4", 4).tolist()
        width = 2 * GRID * GRID // 8
        rest = np.frombuffer(data, np.uint8, offset=16)
        seen, heard = rest[: pictures * width], rest[pictures * width :]
        count = len(heard) // (1 + BANDS // 8)
        return cls(
            frames,
            seen.reshape(pictures, width),
            picture_stride,
            heard[count:].reshape(count, BANDS // 8),
            heard[:count],
            sound_stride,
        )


class PrintMaker:
    """Makes a print while a recording is read; memory does not grow with its length."""

    def __init__(self) -> None:
        self.frames = 0
        self._pictures: list[Bits] = []
        self._looked, self._picture_stride = 0, 1
        self._sounds: list[Bits] = []
        self._levels: list[int] = []
        self._heard, self._sound_stride = 0, 1
        self._rest = np.zeros(0, np.float32)
        self._before: list[NDArray[np.float64]] = []

    def picture(self, small: Callable[[], NDArray[np.uint8]]) -> None:
        """Take the next frame.

        Args:
            small: makes a small copy of it, uint8 (h, w, 3); not called for every frame.
        """
        if self.frames % PICTURE_STEP == 0:
            if self._looked % self._picture_stride == 0:
                self._pictures.append(picture_bits(small()))
            self._looked += 1
            if len(self._pictures) > MOST_PICTURES:
                self._pictures = self._pictures[::2]
                self._picture_stride *= 2
        self.frames += 1

    def sound(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, float32 at 16 kHz, any number of them."""
        self._rest = np.concatenate([self._rest, samples])
        count = max(0, (len(self._rest) - WINDOW) // SAMPLES_PER_FRAME + 1)
        for number in range(count):
            begin = number * SAMPLES_PER_FRAME
            self._take(self._rest[begin : begin + WINDOW])
        self._rest = self._rest[count * SAMPLES_PER_FRAME :]

    def _take(self, window: NDArray[np.float32]) -> None:
        bands = _band_energies(window)
        self._before = [*self._before[-APART:], bands]
        if (self._heard // BURST) % self._sound_stride == 0:
            change = self._before[-1] - self._before[0]
            self._sounds.append(np.packbits(change[1:] > change[:-1]))
            power = float(np.mean(np.square(window, dtype=np.float64)))
            self._levels.append(round(max(0.0, 100 + 10 * np.log10(power + 1e-12))))
            if len(self._sounds) > MOST_SOUNDS:
                kept = [at for at in range(len(self._sounds)) if (at // BURST) % 2 == 0]
                self._sounds = [self._sounds[at] for at in kept]
                self._levels = [self._levels[at] for at in kept]
                self._sound_stride *= 2
        self._heard += 1

    def made(self) -> Print:
        """The print of what was taken so far."""
        return Print(
            self.frames,
            np.array(self._pictures, np.uint8).reshape(-1, 2 * GRID * GRID // 8),
            self._picture_stride,
            np.array(self._sounds, np.uint8).reshape(-1, BANDS // 8),
            np.array(self._levels, np.uint8),
            self._sound_stride,
        )


def picture_bits(rgb: NDArray[np.uint8]) -> Bits:
    """Packed signs of a picture, uint8 (h, w, 3): darker to the left, then darker above."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey, (GRID + 1, GRID + 1), interpolation=cv2.INTER_AREA).astype(np.int16)
    across = cells[:GRID, 1:] > cells[:GRID, :GRID]
    down = cells[1:, :GRID] > cells[:GRID, :GRID]
    return np.packbits(np.concatenate([across.ravel(), down.ravel()]))


_HANN = np.hanning(WINDOW).astype(np.float32)
_EDGES = np.round(np.geomspace(LOW_HZ, HIGH_HZ, BANDS + 2) * WINDOW / SAMPLE_RATE).astype(np.int64)


def _band_energies(window: NDArray[np.float32]) -> NDArray[np.float64]:
    """(BANDS + 1,) logarithms."""
    power = np.square(np.abs(np.fft.rfft(window * _HANN)))
    return np.log(np.add.reduceat(power, _EDGES)[:-1] + 1e-6)


def same_length(first: Print, second: Print) -> bool:
    """Whether two recordings may be the same by their lengths."""
    apart = abs(first.frames - second.frames)
    return apart <= max(LENGTH_S * FPS, LENGTH_SHARE * min(first.frames, second.frames))


def contour(made: Print) -> NDArray[np.float32]:
    """Loudness over time, (CONTOUR,) decibels around its mean: a quick look before a close one."""
    if not len(made.levels):
        return np.zeros(CONTOUR, np.float32)
    levels = made.levels.astype(np.float32)
    levels = np.maximum(levels, levels.max() - QUIET_DB)
    edges = np.linspace(0, len(levels), CONTOUR + 1)
    total = np.interp(edges, np.arange(len(levels) + 1), np.concatenate([[0], np.cumsum(levels)]))
    steps = np.diff(total) / np.diff(edges)
    return (steps - steps.mean()).astype(np.float32)


def same_recording(first: Print, second: Print) -> tuple[float, float] | None:
    """Distances of pictures and sound of two encodings of one recording; None for other ones."""
    if not same_length(first, second):
        return None
    pictures = picture_distance(first, second)
    if pictures > SAME_PICTURES:
        return None
    sound = sound_distance(first, second)
    return (pictures, sound) if sound <= SAME_SOUND else None


def picture_distance(first: Print, second: Print) -> float:
    """Share of differing signs of pictures, about 0.5 for unrelated ones; 1 if there are none."""
    stride = max(first.picture_stride, second.picture_stride)
    one = first.pictures[:: stride // first.picture_stride]
    other = second.pictures[:: stride // second.picture_stride]
    count = min(len(one), len(other))
    if not count:
        return 1.0
    return float(np.unpackbits(one[:count] ^ other[:count]).mean())


def sound_distance(first: Print, second: Print) -> float:
    """Share of differing signs of loud sound, at the best shift; 1 if there is too little of it.

    Frames that are loud in only one of them count as half different, as unrelated ones would.
    """
    stride = max(first.sound_stride, second.sound_stride)
    one, other = _thinned(first, stride), _thinned(second, stride)
    return min(_shifted(one, other, lag) for lag in range(-MOST_LAG, MOST_LAG + 1))


Sounds = tuple[NDArray[np.int64], Bits, NDArray[np.bool_]]


def _thinned(made: Print, stride: int) -> Sounds:
    """Numbers of the frames, their signs and which are loud."""
    at = np.arange(len(made.sounds))
    frames = at // BURST * BURST * made.sound_stride + at % BURST
    kept = (frames // BURST) % stride == 0
    loud = made.levels >= max(made.levels.max(initial=0) - QUIET_DB, 1)
    return frames[kept], made.sounds[kept], loud[kept]


def _shifted(one: Sounds, other: Sounds, lag: int) -> float:
    _, left, right = np.intersect1d(one[0] + lag, other[0], True, True)
    both = one[2][left] & other[2][right]
    either = one[2][left] | other[2][right]
    if both.sum() < ENOUGH_SOUNDS:
        return 1.0
    differ = np.unpackbits(one[1][left] ^ other[1][right], axis=1).mean(axis=1)
    return float((differ[both].sum() + 0.5 * (either & ~both).sum()) / either.sum())
