"""How far audio and lips are apart, and how sure that is, without any learned weights.

The opening of the mouth is correlated with a mixture of the speech's bands that rises with
open vowels, its width with one that rises with spread lips (front vowels, s, z), at every
shift. The highest correlation within +-15 frames is the offset; its height over the chance
level of larger shifts is the confidence.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from datasets.errors import UserError
from datasets.landmarks import face_size
from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME

MAX_LAG = 15
"""Largest offset that is searched for, frames at 25 fps."""
DEFAULT_MIN_CONFIDENCE = 3.0
"""Audio of somebody else reaches this on about one clip of 5 s in thirty."""

BAND_EDGES_HZ = (100, 300, 500, 750, 1050, 1400, 1850, 2450, 3200, 4200, 5500, 7500)
OPENING_BANDS = np.array([0.0, -0.4, 0.0, 0.5, 0.15, 0.3, 0.2, 0.4, 0.3, 0.35, -0.1])
WIDTH_BANDS = np.array([0.0, -0.4, -0.1, -0.1, -0.5, 0.1, 0.2, 0.45, 0.15, 0.5, 0.1])
"""How much each band tells of the mouth: rounded from a regression over 14 talking heads."""
WIDTH_SHARE = 0.7
"""Weight of the mouth's width; its opening has 1."""
VELOCITY_SHARE = 0.5
"""Weight of how fast both change; where they stand has 1."""
FLOOR = 1e-3
"""Energy under this share of a band's loud parts counts as silence."""
MOUTH_BLUR, AUDIO_BLUR = 0.5, 0.7
"""Standard deviation of the smoothing over time, frames."""
TREND_FRAMES = 25
"""Slower changes than this are posture or loudness, not speech."""
PRIOR_SHIFTS = 30
"""How many shifts the expected chance level counts for beside the observed one."""

OUTER_LIPS = (0, 17)
MOUTH_CORNERS = (61, 291)


@dataclass(frozen=True)
class OffsetScore:
    """What a scorer found."""

    offset_frames: float
    """Delay of the audio, frames at 25 fps; positive: the audio is late."""
    confidence: float
    """How far that stands out, in the scorer's own units; 0 when nothing can be measured."""


class OffsetScorer(Protocol):
    """Measures the offset between lips and audio of one clip."""

    name: str
    needs_frames: bool

    def score(self, landmarks: np.ndarray, audio: np.ndarray) -> OffsetScore:
        """From landmarks (t, 478, 2) at 25 fps and audio (n,) at 16 kHz that begin together."""


class MouthAudioScorer:
    """Correlation of the mouth's opening and width with speech energy; needs no weights."""

    name = "mouth-audio"
    needs_frames = False

    def score(self, landmarks: np.ndarray, audio: np.ndarray) -> OffsetScore:
        """Offset within +-15 frames, and its z-score against larger, circular shifts."""
        frames = len(landmarks)
        if frames < MAX_LAG:
            return OffsetScore(0.0, 0.0)
        opening, width = mouth_signals(landmarks)
        bands = band_signals(audio, frames)
        pairs = [(1.0, opening, bands @ OPENING_BANDS), (WIDTH_SHARE, width, bands @ WIDTH_BANDS)]
        pairs = [pair for pair in pairs if pair[1].any() and pair[2].any()]
        if not pairs:
            return OffsetScore(0.0, 0.0)
        total = sum(weight for weight, _, _ in pairs)
        curve, variance = np.zeros(frames), 0.0
        for weight, mouth, sound in pairs:
            share = weight / total
            speeds = _circular_correlation(np.gradient(mouth), np.gradient(sound))
            both = _circular_correlation(mouth, sound) + VELOCITY_SHARE * speeds
            curve += share * both / (1 + VELOCITY_SHARE)
            variance += share**2 / _independent_frames(mouth, sound)
        return _peak(curve, variance)


def mouth_signals(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Opening and width (t,) of the mouth, without trend, of unit variance (or all zero).

    The outer lips tell more than the inner ones: they also show closed lips being pressed.
    """
    points = np.asarray(landmarks, np.float64)
    size = face_size(points)
    spans = [
        np.linalg.norm(points[:, first] - points[:, second], axis=-1) / size
        for first, second in (OUTER_LIPS, MOUTH_CORNERS)
    ]
    opening, width = _prepared(np.stack(spans, axis=1), MOUTH_BLUR).T
    return opening, width


def band_signals(audio: np.ndarray, frames: int) -> np.ndarray:
    """Log energy of the bands at each frame (frames, bands), prepared like the mouth's."""
    window = 2 * SAMPLES_PER_FRAME
    before = (window - SAMPLES_PER_FRAME) // 2
    padded = np.zeros(frames * SAMPLES_PER_FRAME + 2 * before)
    part = np.asarray(audio, np.float64)[: frames * SAMPLES_PER_FRAME]
    padded[before : before + len(part)] = part
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[::SAMPLES_PER_FRAME]
    power = np.abs(np.fft.rfft(pieces * np.hanning(window), axis=1)) ** 2
    edges = np.searchsorted(np.fft.rfftfreq(window, 1 / SAMPLE_RATE), BAND_EDGES_HZ)
    energy = np.add.reduceat(power, edges, axis=1)[:, : len(BAND_EDGES_HZ) - 1]
    loud = np.quantile(energy, 0.95, axis=0)
    level = np.log(energy / np.maximum(loud, 1e-9) + FLOOR)
    return _prepared(level, AUDIO_BLUR)


def _prepared(signals: np.ndarray, blur: float) -> np.ndarray:
    """Columns (t, n) smoothed over time, without their trend, scaled to unit variance."""
    reach = np.arange(-4, 5)
    smooth = _filtered(signals, np.exp(-0.5 * (reach / blur) ** 2))
    rest = smooth - _filtered(smooth, np.hanning(TREND_FRAMES + 2)[1:-1])
    deviation = rest.std(axis=0)
    # What hardly moves at all is rounding noise and must not be blown up.
    return np.where(deviation > 1e-5, rest / np.maximum(deviation, 1e-5), 0.0)


def _filtered(signals: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    reach = len(kernel) // 2
    padded = np.pad(signals, ((reach, reach), (0, 0)), mode="reflect")
    kernel = kernel / kernel.sum()
    return np.stack([np.convolve(each, kernel, "valid") for each in padded.T], axis=1)


def _circular_correlation(mouth: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Correlation (t,) with the sound read `lag` frames later, for each lag from 0 around."""
    mouth, sound = mouth - mouth.mean(), sound - sound.mean()
    spectrum = np.conj(np.fft.rfft(mouth)) * np.fft.rfft(sound)
    scale = max(float(np.linalg.norm(mouth) * np.linalg.norm(sound)), 1e-12)
    return np.fft.irfft(spectrum, len(mouth)) / scale


def _independent_frames(mouth: np.ndarray, sound: np.ndarray) -> float:
    """How many independent values two signals hold, given how slowly both change (Bartlett)."""
    both = _circular_correlation(mouth, mouth) * _circular_correlation(sound, sound)
    return len(mouth) / max(float(both.sum()), 1.0)


def _peak(curve: np.ndarray, chance_variance: float) -> OffsetScore:
    """The highest point within the lags, and how far it stands over chance.

    Short clips leave few shifts to learn the chance level from, so what is observed is mixed
    with what is expected of signals without relation.
    """
    lags = np.arange(-MAX_LAG, MAX_LAG + 1)
    near = curve[lags % len(curve)]
    far = curve[MAX_LAG + 1 : len(curve) - MAX_LAG]
    weight = len(far) + PRIOR_SHIFTS
    mean = float(far.sum()) / weight
    squares = float(((far - mean) ** 2).sum()) + PRIOR_SHIFTS * chance_variance
    best = int(np.argmax(near))
    confidence = (float(near[best]) - mean) / np.sqrt(squares / weight)
    return OffsetScore(float(lags[best] + _top_of_parabola(near, best)), float(confidence))


def _top_of_parabola(values: np.ndarray, index: int) -> float:
    """Where between -0.5 and 0.5 around `index` a parabola through its neighbours is highest."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, here, after = values[index - 1 : index + 2]
    bend = before - 2 * here + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0


SCORERS: dict[str, type[MouthAudioScorer]] = {MouthAudioScorer.name: MouthAudioScorer}


def get_scorer(name: str) -> OffsetScorer:
    """The scorer of a name.

    Raises:
        UserError: there is none.
    """
    if name not in SCORERS:
        raise UserError(f"no offset scorer is called {name}; there is: {', '.join(SCORERS)}")
    return SCORERS[name]()
