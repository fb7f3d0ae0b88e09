"""The offset of lips and sound without any network: the scorer `mouth-audio`.

Distances between points of the mouth and the energies of frequency bands of the speech are each
reduced to a few courses over time that match in talking heads (`mouth_audio_weights`: jaw with
the loudness of open vowels, lips with rounding). They are correlated at every shift. The highest
correlation within +-15 frames gives the offset; its height above chance, and above the next
peak, gives the confidence.
"""

from collections.abc import Sequence

import numpy as np

from datasets.faces.landmarks import face_size
from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME
from tasks.sync.mouth_audio_weights import BAND_EDGES_HZ, DISTANCES, WEIGHTS, MouthAudioWeights
from tasks.sync.signals import (
    MAX_LAG,
    MOUTH_AUDIO,
    ClipSignals,
    OffsetScore,
    default_min_confidence,
)

VELOCITY_SHARE = 0.5
"""Weight of the rates of change; the values themselves have weight 1."""
FLOOR = 1e-3
"""Energy below this share of a band's loud parts counts as silence."""
MOUTH_BLUR, AUDIO_BLUR = 0.5, 0.7
"""Standard deviation of the smoothing over time, frames."""
TREND_FRAMES = 25
"""Slower changes than this are posture or loudness, not speech."""
STILL = 1e-4
"""Movement in face sizes, and energy in nepers, that is only rounding noise."""
PEAK_FRAMES = 4
"""Shifts this close to the highest point belong to its peak."""
PRIOR_SHIFTS = 30
"""Number of shifts that the expected chance level counts as, next to the observed one."""
USUAL_RIVAL = 1.5
"""Height of the second peak of unrelated signals, standard deviations."""
NOISE_FRAMES = 4.0
"""Frames over which a correlation by chance changes by as much as its standard deviation."""
PECULIAR = 0.5
"""Frames; root mean square error of the offset of 13 speakers whose offset is known."""


class MouthAudioScorer:
    """Correlation of the mouth's shape with the speech's bands; needs no published weights.

    Args:
        weights: which distances match which bands.
    """

    name = MOUTH_AUDIO
    needs_frames = False
    min_confidence = default_min_confidence(MOUTH_AUDIO)

    def __init__(self, weights: MouthAudioWeights = WEIGHTS) -> None:
        self.weights = weights

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        """Of each clip."""
        return [self.measure(clip.landmarks, clip.audio) for clip in clips]

    def measure(self, landmarks: np.ndarray, audio: np.ndarray) -> OffsetScore:
        """Offset within +-15 frames, and how far it stands out, in standard deviations.

        Args:
            landmarks: (t, 478, 2) at 25 fps.
            audio: (n,) at 16 kHz, beginning with the first frame.
        """
        return self.measure_spans(mouth_spans(landmarks), audio)

    def measure_spans(self, spans: np.ndarray, audio: np.ndarray) -> OffsetScore:
        """The same from the result of `mouth_spans` for each frame, (t, distances)."""
        frames = len(spans)
        if frames < MAX_LAG:
            return OffsetScore(0.0, 0.0)
        mouths = remove_trend(spans, MOUTH_BLUR) @ self.weights.mouth
        sounds = band_signals(audio, frames) @ self.weights.sound
        curve, variance, total = np.zeros(frames), 0.0, 0.0
        for share, mouth, sound in zip(self.weights.shares, mouths.T, sounds.T, strict=True):
            if not (mouth.any() and sound.any()):
                continue
            speeds = _circular_correlation(np.gradient(mouth), np.gradient(sound))
            both = _circular_correlation(mouth, sound) + VELOCITY_SHARE * speeds
            curve += share * both / (1 + VELOCITY_SHARE)
            variance += share**2 / _independent_frames(mouth, sound)
            total += share
        if not total:
            return OffsetScore(0.0, 0.0)
        return _peak(curve / total, variance / total**2)


def mouth_spans(landmarks: np.ndarray) -> np.ndarray:
    """`DISTANCES` at each frame (t, distances), in sizes of the face."""
    points = np.asarray(landmarks, np.float64)
    first, second = np.array(DISTANCES).T
    spans = np.linalg.norm(points[:, first] - points[:, second], axis=-1)
    return spans / face_size(points)[:, None]


def mouth_signals(landmarks: np.ndarray) -> np.ndarray:
    """`mouth_spans` (t, distances) without their trend."""
    return remove_trend(mouth_spans(landmarks), MOUTH_BLUR)


def band_signals(audio: np.ndarray, frames: int) -> np.ndarray:
    """Log energy of the bands at each frame (frames, bands), without trend, of unit variance."""
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
    level = remove_trend(np.log(energy / np.maximum(loud, 1e-9) + FLOOR), AUDIO_BLUR)
    return level / np.maximum(level.std(axis=0), STILL)


def remove_trend(signals: np.ndarray, blur: float) -> np.ndarray:
    """Columns (t, n) smoothed over time, less their slow changes; zero where nothing moves.

    Args:
        signals: (t, n) at 25 fps, 13 frames or more.
        blur: standard deviation of the smoothing, frames.
    """
    reach = np.arange(-4, 5)
    smooth = _filter(signals, np.exp(-0.5 * (reach / blur) ** 2))
    rest = smooth - _filter(smooth, _hanning(TREND_FRAMES))
    return np.where(rest.std(axis=0) > STILL, rest, 0.0)


def _hanning(length: int) -> np.ndarray:
    return np.hanning(length + 2)[1:-1]


def _filter(signals: np.ndarray, kernel: np.ndarray) -> np.ndarray:
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
    """How many independent values two signals hold, given how slowly both change (Bartlett).

    There are fewer if both are active at the same moments, as in a sentence between two pauses:
    then only these moments count.
    """
    both = _circular_correlation(mouth, mouth) * _circular_correlation(sound, sound)
    count = len(mouth) / max(float(both.sum()), 1.0)
    power = _filter(np.stack([mouth, sound], axis=1) ** 2, _hanning(TREND_FRAMES))
    liveliness = power / np.maximum(power.mean(axis=0), 1e-12) - 1
    spectrum = np.fft.rfft(liveliness, axis=0)
    shared = np.fft.irfft(np.conj(spectrum[:, 0]) * spectrum[:, 1], len(mouth)) / len(mouth)
    return count / (1 + max(float(shared[_lags() % len(mouth)].max()), 0.0))


def _lags() -> np.ndarray:
    return np.arange(-MAX_LAG, MAX_LAG + 1)


def _peak(curve: np.ndarray, chance_variance: float) -> OffsetScore:
    """The highest point within the lags, and its height above chance and above other peaks.

    Short clips leave few shifts to estimate the chance level from, so the observed level is mixed
    with the one expected for unrelated signals. A repeating rhythm gives several
    peaks: the lead over the second counts as much as the height.
    """
    lags = _lags()
    near = curve[lags % len(curve)]
    best = int(np.argmax(near))
    others = near[np.abs(lags - lags[best]) > PEAK_FRAMES]
    chance = np.concatenate([curve[MAX_LAG + 1 : len(curve) - MAX_LAG], others])
    weight = len(chance) + PRIOR_SHIFTS
    mean = float(chance.sum()) / weight
    squares = float(((chance - mean) ** 2).sum()) + PRIOR_SHIFTS * chance_variance
    return score_of_curve(near - mean, float(np.sqrt(squares / weight)))


def score_of_curve(curve: np.ndarray, chance: float) -> OffsetScore:
    """The score of a clip, or of several together.

    Args:
        curve: (31,) correlation above chance for the sound taken -15 to +15 frames later.
        chance: its standard deviation by chance.
    """
    lags = _lags()
    best = int(np.argmax(curve))
    rival = float(curve[np.abs(lags - lags[best]) > PEAK_FRAMES].max())
    top = float(curve[best])
    confidence = ((top + top - rival) / chance + USUAL_RIVAL) / 2
    return OffsetScore(
        float(lags[best] + _top_of_parabola(curve, best)),
        float(confidence),
        uncertainty=_uncertainty(curve, best, chance),
        curve=curve,
        chance=chance,
    )


def _uncertainty(curve: np.ndarray, best: int, chance: float) -> float:
    """How close the true offset is, frames: two standard deviations.

    A random slope, `chance` over `NOISE_FRAMES`, moves the top of a peak by itself over the peak's
    curvature. What is peculiar to a face or a microphone comes on top.
    """
    around = curve[max(best - 1, 0) : best + 2]
    bend = around[0] - 2 * around[1] + around[2] if len(around) == 3 else 0.0
    moved = chance / NOISE_FRAMES / max(float(-bend), 1e-3)
    return float(min(2 * np.hypot(PECULIAR, moved), MAX_LAG))


def _top_of_parabola(values: np.ndarray, index: int) -> float:
    """The maximum, between -0.5 and 0.5 from `index`, of a parabola through its neighbours."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, here, after = values[index - 1 : index + 2]
    bend = before - 2 * here + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
