"""Whether somebody speaks, frame by frame.

Loaded by workers that judge clips; it imports torch, which others need not.
"""

import numpy as np

from models.audio.voice_activity import speech_probability


def voice_of_frames(audio: np.ndarray) -> np.ndarray:
    """Probability of speech float32 (t,), 0 to 1, at 25 fps.

    Args:
        audio: float32 (t * 640,) at 16 kHz.

    Raises:
        ModuleNotFoundError: silero-vad is not installed.
    """
    return speech_probability(audio)
