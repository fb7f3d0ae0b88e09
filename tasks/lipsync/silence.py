"""What a mouth does where nobody speaks within the speech: `silence`.

Where that is, silero-vad says. With `model` the network hears the sound as it is, also breath and
noise; with `closed` it hears silence there; with `original` the frames stay as they were.
"""

from itertools import pairwise

import numpy as np

from datasets.errors import UserError
from datasets.media import FPS, SAMPLE_RATE
from models.audio.voice_activity import SPEECH, speech_probability

MODEL, CLOSED, ORIGINAL = "model", "closed", "original"
SILENCES = (MODEL, CLOSED, ORIGINAL)
LEAST_PAUSE_S = 0.4
"""Shorter pauses belong to the speech: a mouth does not come to rest in them."""
MARGIN_S = 0.12
"""Lips open before a word is heard, and close after it."""

Span = tuple[float, float]
"""Begin and end, seconds."""


def check_silence(name: str) -> None:
    """Raise a `UserError` where there is no such way."""
    if name not in SILENCES:
        raise UserError(f"silence must be one of {', '.join(SILENCES)}, got {name!r}")


def spoken_spans(wave: np.ndarray) -> tuple[Span, ...]:
    """When somebody speaks, with a margin around it and without short pauses.

    Args:
        wave: float32 (samples,), 16 kHz.
    """
    speaks = speech_probability(wave) >= SPEECH
    edges = np.flatnonzero(np.diff(np.concatenate([[False], speaks, [False]]).astype(int)))
    spans: list[Span] = []
    for first, stop in edges.reshape(-1, 2) / FPS:
        begin = max(0.0, float(first) - MARGIN_S)
        end = min(len(wave) / SAMPLE_RATE, float(stop) + MARGIN_S)
        if spans and begin - spans[-1][1] < LEAST_PAUSE_S - 2 * MARGIN_S:
            begin = spans.pop()[0]
        spans.append((begin, end))
    return tuple(spans)


def muted_outside(wave: np.ndarray, spans: tuple[Span, ...]) -> np.ndarray:
    """A wave, float32 (samples,), with zeros where nobody speaks."""
    found = wave.copy()
    edges = [0, *(round(each * SAMPLE_RATE) for span in spans for each in span), len(wave)]
    for begin, end in list(pairwise(edges))[::2]:
        found[begin:end] = 0
    return found
