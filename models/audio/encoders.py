"""The choice of audio condition: mel tokens (tiny recipe), Whisper features (LatentSync's paper) or
AV-HuBERT's (SyncDiff's)."""

from typing import Any, Protocol, runtime_checkable

import torch

from models.audio.avhubert_tokens import AVHubertTokens
from models.audio.mel import Audio
from models.audio.mel_tokens import MelTokens
from models.audio.whisper_tokens import WhisperTokens

AUDIO_ENCODERS = ("mel", "whisper", "avhubert")


@runtime_checkable
class AudioEncoder(Protocol):
    """What the U-Net needs from an audio encoder. Implementations are `nn.Module`s."""

    width: int
    """Channels per token."""
    tokens_per_frame: int
    """Tokens that each video frame attends to."""

    def encode(self, wave: Audio, num_frames: int) -> torch.Tensor:
        """(samples,) mono at 16 kHz -> (num_frames, tokens_per_frame, width) at 25 fps."""
        ...


def build_audio_encoder(name: str, config: dict[str, Any]) -> AudioEncoder:
    """An audio encoder by name.

    Args:
        name: "mel", "whisper" or "avhubert".
        config: keyword arguments of `MelTokens`, `WhisperTokens` or `AVHubertTokens`. An encoder
            of the latter two has fresh weights; their `from_file` reads trained ones.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "mel":
        return MelTokens(**config)
    if name == "whisper":
        return WhisperTokens(**config)
    if name == "avhubert":
        return AVHubertTokens(**config)
    raise ValueError(f"unknown audio encoder {name!r}, expected one of {AUDIO_ENCODERS}")
