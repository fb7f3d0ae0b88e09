"""Changes to pictures and sound that preserve who says what, and when.

They stand in for the speakers, cameras and microphones that a small dataset lacks. Every
draw comes from the generator that is passed in, so a batch is a function of (seed, step).
A colour change is a lookup table per channel: it costs one `take` per frame, whatever
the curve.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.media import SAMPLE_RATE

GAIN = 0.35
"""Largest change of a colour channel's contrast at strength 1, as a share."""
OFFSET = 0.25
"""Largest change of a colour channel's brightness at strength 1, in units of half the range."""
LOG_GAMMA = 0.5
"""Largest absolute logarithm of the tone curve's exponent at strength 1."""
EXCHANGE = 0.5
"""Probability that the colour channels are permuted, at strength 1."""
GAIN_DB = 9.0
"""Largest change of loudness at strength 1, decibels."""
TILT_DB = 4.0
"""Largest spectral tilt at strength 1, decibels per octave around 1 kHz."""
NOISE_DB = (-60.0, -30.0)
"""Level of the added white noise relative to the loudest sample, decibels."""


@dataclass(frozen=True)
class Colours:
    """One change of colours, for all frames that belong together."""

    channels: tuple[int, int, int]
    """Which source channel each channel of the result shows."""
    curves: NDArray[np.float32]
    """(3, 256): the result's value in [-1, 1] for each grey level of the source channel."""

    def apply(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames (..., h, w, 3) uint8 as pixels (..., 3, h, w) in [-1, 1]."""
        planes = [
            curve[frames[..., channel]]
            for channel, curve in zip(self.channels, self.curves, strict=True)
        ]
        return np.stack(planes, axis=-3)


def _identity() -> NDArray[np.float32]:
    grey = np.linspace(-1.0, 1.0, 256, dtype=np.float32)
    return np.repeat(grey[None], 3, axis=0)


PLAIN = Colours((0, 1, 2), _identity())
"""No change, only the conversion from uint8 to [-1, 1]."""


def draw_colours(rng: np.random.Generator, strength: float) -> Colours:
    """A random change of channel order, contrast, brightness and tone curve.

    Args:
        rng: source of the draws.
        strength: 0 for none, 1 for the full ranges given by this file's constants.
    """
    if strength <= 0:
        return PLAIN
    exchange = rng.random() < EXCHANGE * strength
    order = rng.permutation(3) if exchange else np.arange(3)
    gain = 1 + strength * GAIN * rng.uniform(-1, 1, (3, 1))
    offset = strength * OFFSET * rng.uniform(-1, 1) + 0.3 * OFFSET * strength * rng.uniform(
        -1, 1, (3, 1)
    )
    gamma = np.exp(strength * LOG_GAMMA * rng.uniform(-1, 1))
    curve = 2 * np.linspace(0, 1, 256) ** gamma - 1
    curves = np.clip(curve[None] * gain + offset, -1, 1).astype(np.float32)
    return Colours((int(order[0]), int(order[1]), int(order[2])), curves)


def draw_shift(rng: np.random.Generator, side: int, share: float) -> tuple[int, int]:
    """A displacement (down, right) in whole pixels, each at most `share` of `side`."""
    reach = round(side * share)
    if reach <= 0:
        return 0, 0
    return int(rng.integers(-reach, reach + 1)), int(rng.integers(-reach, reach + 1))


def shift_frames(frames: NDArray[np.uint8], shift: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames (..., h, w, 3) moved by (down, right) pixels; edges are repeated."""
    down, right = shift
    if not down and not right:
        return frames
    height, width = frames.shape[-3:-1]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frames[..., rows[:, None], columns[None], :]


def change_sound(
    audio: NDArray[np.float32], rng: np.random.Generator, strength: float
) -> NDArray[np.float32]:
    """Audio (n,) at 16 kHz as if from another microphone: loudness, tilt, noise. No time shift."""
    if strength <= 0 or audio.size == 0:
        return audio
    gain_db = strength * GAIN_DB * rng.uniform(-1, 1)
    tilt_db = strength * TILT_DB * rng.uniform(-1, 1)
    noise_db = rng.uniform(*NOISE_DB)
    spectrum = np.fft.rfft(audio)
    frequency = np.fft.rfftfreq(audio.size, 1 / SAMPLE_RATE)
    octaves = np.log2(np.clip(frequency, 60.0, None) / 1000.0)
    spectrum *= 10 ** ((gain_db + tilt_db * octaves) / 20)
    changed = np.fft.irfft(spectrum, audio.size)
    loudest = float(np.abs(changed).max())
    if loudest > 0:
        changed += loudest * 10 ** (noise_db / 20) * strength * rng.standard_normal(audio.size)
    return np.clip(changed, -1, 1).astype(np.float32)
