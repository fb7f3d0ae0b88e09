"""Frame by frame, whether a sound is that of the lips that are seen.

The courses over time of `tasks.sync.mouth_audio_weights`, two of the mouth and two of the speech
that match, are taken as jointly normal: correlated where the speech is that of the lips,
independent where it is somebody else's. The log-likelihood ratio of the two, summed over a
stretch, is the evidence for the first (Wald's sequential test). The most likely sequence of the
two states, each change of which costs `CHANGE`, is found by Viterbi's algorithm.
"""

import numpy as np

from tasks.sync.mouth_audio import MOUTH_BLUR, VELOCITY_SHARE, band_signals, remove_trend
from tasks.sync.mouth_audio_weights import WEIGHTS, MouthAudioWeights
from tasks.sync.signals import MAX_LAG

CORRELATIONS = (0.42, 0.3)
"""Of each pair of courses where lips and speech belong together. 8 speakers have 0.5 and 0.35 over
5 s and more; a little less is supposed, for those whose lips follow more weakly."""
INDEPENDENT = 0.35
"""Share of frames that count as independent: speech changes slowly."""
OTHER_TIMES = 0.5
"""Share of the mean over all lags that is taken off: the same speech at another time is that of a
stranger who is as loud and as lively."""
DOUBT = 0.045
"""Evidence against in every frame, nats: what of it is left for the best lag of a stranger."""
CHANGE = 2.5
"""Nats that the evidence after a change must weigh."""
EXTREME = 3.0
"""Standard deviations; beyond them signals are cut, since speech is not normal."""
LEAST_USUAL = 25
"""Frames; of fewer the deviation is not known."""
LAGS = np.arange(-MAX_LAG, MAX_LAG + 1)


def log_likelihood_ratios(
    spans: np.ndarray,
    audio: np.ndarray,
    seen: np.ndarray | None = None,
    heard: np.ndarray | None = None,
    weights: MouthAudioWeights = WEIGHTS,
) -> np.ndarray:
    """Evidence that the sound is that of the lips, float64 (31, t) in nats, for each lag and frame.

    Args:
        spans: (t, distances), the result of `tasks.sync.mouth_audio.mouth_spans`.
        audio: float32 ((t + 30) * 640,) at 16 kHz, from 15 frames before the first on.
        seen: bool (t,) frames that say how much these lips move; None: all.
        heard: bool (t + 30,) frames that say how much this sound changes; None: all. Where sound
            stops it changes more than in any speech.
        weights: which distances match which bands.
    """
    frames = len(spans)
    mouths = remove_trend(spans, MOUTH_BLUR) @ weights.mouth
    sounds = band_signals(audio, frames + 2 * MAX_LAG) @ weights.sound
    total = np.zeros((len(LAGS), frames))
    for correlation, mouth, sound in zip(CORRELATIONS, mouths.T, sounds.T, strict=True):
        for share, lips, voice in (
            (1.0, mouth, sound),
            (VELOCITY_SHARE, np.gradient(mouth), np.gradient(sound)),
        ):
            later = np.lib.stride_tricks.sliding_window_view(_standard(voice, heard), frames)
            total += share * _ratio(_standard(lips, seen), later, correlation)
    total -= OTHER_TIMES * total.mean(axis=0)
    return total * (INDEPENDENT / (1 + VELOCITY_SHARE)) - DOUBT


def _standard(signal: np.ndarray, usual: np.ndarray | None) -> np.ndarray:
    """In standard deviations of the usual frames, without extremes."""
    known = signal if usual is None or usual.sum() < LEAST_USUAL else signal[usual]
    return np.clip((signal - known.mean()) / max(float(known.std()), 1e-9), -EXTREME, EXTREME)


def _ratio(x: np.ndarray, y: np.ndarray, correlation: float) -> np.ndarray:
    """Log of the density of correlated over that of independent standard normal variables."""
    square = correlation**2
    product = correlation * x * y - square / 2 * (x**2 + y**2)
    return np.asarray(product / (1 - square) - np.log(1 - square) / 2)


def evidence_by_lag(ratios: np.ndarray) -> np.ndarray:
    """Evidence of the most likely sequence of states, float64 (31,) in nats, never negative.

    Args:
        ratios: (31, t), nats.
    """
    apart, together = np.zeros(len(ratios)), np.zeros(len(ratios))
    for ratio in ratios.T:
        apart, together = np.maximum(apart, together - CHANGE), np.maximum(together, apart - CHANGE)
        together = together + ratio
    return np.maximum(apart, together)


def most_likely_states(evidence: np.ndarray) -> np.ndarray:
    """The most likely sequence of states, by Viterbi's algorithm; int (t,).

    A change costs `CHANGE`, and nothing where other states become possible: at a cut all is open.

    Args:
        evidence: (t, states) nats, minus infinity where a state is not possible; at least one is.
    """
    frames, states = evidence.shape
    possible = np.isfinite(evidence)
    best = np.array(evidence[0])
    before = np.zeros((frames, states), int)
    for at in range(1, frames):
        cost = CHANGE if (possible[at] == possible[at - 1]).all() else 0.0
        top = int(np.argmax(best))
        moves = best[top] - cost > best
        before[at] = np.where(moves, top, np.arange(states))
        best = np.where(moves, best[top] - cost, best) + evidence[at]
    found = np.zeros(frames, int)
    found[-1] = int(np.argmax(best))
    for at in range(frames - 1, 0, -1):
        found[at - 1] = before[at, found[at]]
    return found
