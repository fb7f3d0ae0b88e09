"""The configuration of a `LatentSync`; light to import, since recipes use these values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from models.files.errors import ModelFileError

PredictionType = Literal["epsilon", "sample"]
Reference = Literal["frame", "still", "away"]
REFERENCES: tuple[Reference, ...] = get_args(Reference)

MASK = "latentsync-nose-notch"
"""Name of the shape in `models.latentsync.mask`, the only one that networks are trained with
here."""
MASK_WITHOUT_NOTCH = "latentsync-1.5"
"""Name in bundles of earlier releases, whose mask covered the nose."""
CROP = "latentsync-1.5"
"""Name of the alignment that the networks know; `datasets.faces.alignment` makes it."""


@dataclass(frozen=True, kw_only=True)
class LatentSyncConfig:
    """Everything needed to build the networks again."""

    resolution: int = 256
    """Side of the aligned face in pixels."""
    mask: str = MASK
    """Name of the repainted shape."""
    crop: str = CROP
    """Name of the alignment of the faces that the networks were trained on."""
    reference: Reference = "frame"
    """What shows the network who the person is when it repaints. `frame`: every frame's own face,
    as the published programs do; `still`: a face with a calm mouth in the pose of the window, for
    networks that would copy the mouth of a moving one; `away`: a window from another moment, as
    in training."""
    num_frames: int = 16
    """Frames per window."""
    audio: Literal["mel", "whisper", "avhubert"] = "whisper"
    """The audio encoder."""
    latent_channels: int = 4
    """Channels of the autoencoder's latents."""
    scaling_factor: float = 0.18215
    """Factor that brings the latents of a "kl" autoencoder to unit variance."""
    prediction_type: PredictionType = "epsilon"
    """What the U-Net predicts: the noise, or the sample itself."""
    unet: dict[str, Any] = field(default_factory=dict)
    """`LipSyncUNet` arguments; its channels and audio width follow from the other parts."""
    autoencoder: dict[str, Any] = field(default_factory=dict)
    """`kind`, "kl" or "patch", and that one's arguments."""
    audio_encoder: dict[str, Any] = field(default_factory=dict)
    """Arguments of the audio encoder."""

    def __post_init__(self) -> None:
        if self.mask != MASK:
            raise ValueError(f"there is no mask {self.mask!r}, expected {MASK!r}")
        if self.crop != CROP:
            raise ValueError(f"there is no crop {self.crop!r}, expected {CROP!r}")
        if self.reference not in REFERENCES:
            raise ValueError(f"reference must be {', '.join(REFERENCES)}, got {self.reference!r}")
        if self.unet.get("residual") and self.prediction_type != "sample":
            raise ValueError(
                "a residual U-Net starts from a guess of the sample, so prediction_type must be "
                f"'sample', got {self.prediction_type!r}"
            )


def check_inputs(folder: Path, values: Mapping[str, Any]) -> None:
    """Check that a model was made for the mask and the alignment of this release.

    Args:
        folder: the model's folder.
        values: content of its `config.json` or `bundle.json`.

    Raises:
        ModelFileError: it was trained with others, and would give unusable pictures.
    """
    mask, crop = values.get("mask", MASK_WITHOUT_NOTCH), values.get("crop")
    if mask == MASK_WITHOUT_NOTCH or crop is None:
        raise ModelFileError(
            f"the model in {folder} was made with the former mask, without nose notch, and the "
            "former, larger crop: train or import again, or use the release that made it"
        )
    for name, found, expected in (("mask", mask, MASK), ("crop", crop, CROP)):
        if found != expected:
            raise ModelFileError(
                f"the model in {folder} was made with the {name} {found!r}, but this release has "
                f"{expected!r}: train or import again, or use the release that made it"
            )
