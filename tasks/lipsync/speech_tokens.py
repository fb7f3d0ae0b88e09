"""Audio tokens at any time of a recording, of whatever length."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from datasets.media import FPS, SAMPLES_PER_FRAME

PHASES = 4
"""Audio tokens are computed at quarters of a 25 fps frame, so that video of any frame rate
hears its own time within 5 ms."""
BLOCK = 30 * FPS
"""Audio is encoded in blocks of one Whisper window, so that an hour of tokens is never held."""
STRIDE = 24 * FPS
"""Samples from block to block: neighbours share 6 s, so each has 3 s of sound around what is
used."""
FADE = 4
"""Frames over which one block fades into the next, in the middle of their overlap. An encoder
that knows the position in its block encodes the same frame differently in each, and a mean of
two is a token that no network has seen: just enough of them to hide the jump."""


class SpeechTokens:
    """Audio tokens at any time of a recording.

    Args:
        encode: (samples,) and a number of frames -> (frames, n, width); the model's.
        audio: float32 (samples,) mono at 16 kHz.
    """

    def __init__(self, encode: Callable[[np.ndarray, int], Tensor], audio: np.ndarray) -> None:
        self._encode = encode
        self._audio = audio
        frames = -(-len(audio) // SAMPLES_PER_FRAME)
        self._last = max(0, -(-(frames - BLOCK) // STRIDE))
        self._block = lru_cache(maxsize=2 * PHASES)(self._encoded)

    def _encoded(self, block: int, phase: int) -> Tensor:
        begin = block * STRIDE * SAMPLES_PER_FRAME + phase * SAMPLES_PER_FRAME // PHASES
        wave = self._audio[begin : begin + BLOCK * SAMPLES_PER_FRAME]
        # Short recordings are not padded to a whole block.
        count = min(BLOCK, len(wave) // SAMPLES_PER_FRAME + 1)
        padded = np.zeros(count * SAMPLES_PER_FRAME, np.float32)
        padded[: len(wave)] = wave[: len(padded)]
        return self._encode(padded, count)

    def _token(self, frame: int, phase: int) -> Tensor:
        """(n, width): one block fades into the other in the middle of their overlap."""
        block = min(frame // STRIDE, self._last)
        index = frame - block * STRIDE
        first = (BLOCK - STRIDE - FADE) // 2
        later = min(1.0, max(0.0, (index - first + 1) / (FADE + 1))) if block else 1.0
        if later == 1:
            return self._block(block, phase)[index]
        earlier = self._block(block - 1, phase)[index + STRIDE]
        return torch.lerp(earlier, self._block(block, phase)[index], later) if later else earlier

    def at(self, times_s: np.ndarray) -> Tensor:
        """(f,) seconds -> (f, n, width); past the end the last token is held."""
        end = len(self._audio) * PHASES // SAMPLES_PER_FRAME
        quarters = np.clip(np.rint(times_s * (FPS * PHASES)).astype(int), 0, max(0, end - 1))
        return torch.stack([self._token(*divmod(each, PHASES)) for each in quarters.tolist()])
