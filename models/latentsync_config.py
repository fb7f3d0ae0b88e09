"""What a `LatentSync` is made of; light to import, since recipes are made of these values."""

from dataclasses import dataclass, field
from typing import Any, Literal

PredictionType = Literal["epsilon", "sample"]


@dataclass(frozen=True, kw_only=True)
class LatentSyncConfig:
    """Everything needed to build the networks again."""

    resolution: int = 256
    """Side of the aligned face in pixels."""
    num_frames: int = 16
    """Frames per window."""
    audio: Literal["mel", "whisper"] = "whisper"
    """The audio encoder."""
    latent_channels: int = 4
    """Channels of the autoencoder's latents."""
    scaling_factor: float = 0.18215
    """What brings the latents of a "kl" autoencoder to unit variance."""
    prediction_type: PredictionType = "epsilon"
    """What the U-Net predicts: the noise, or the sample itself."""
    unet: dict[str, Any] = field(default_factory=dict)
    """`LipSyncUNet` arguments; its channels and audio width follow from the other parts."""
    autoencoder: dict[str, Any] = field(default_factory=dict)
    """`kind`, "kl" or "patch", and that one's arguments."""
    audio_encoder: dict[str, Any] = field(default_factory=dict)
    """Arguments of the audio encoder."""

    def __post_init__(self) -> None:
        if self.unet.get("residual") and self.prediction_type != "sample":
            raise ValueError(
                "a residual U-Net starts from a guess of the sample, so prediction_type must be "
                f"'sample', got {self.prediction_type!r}"
            )
