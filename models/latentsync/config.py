"""The configuration of a `LatentSync`; light to import, since recipes use these values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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


PoseKind = Literal["none", "full", "channel", "vector", "outside"]


@dataclass(frozen=True, kw_only=True)
class PoseConfig:
    """How a model is shown an earlier frame, for generation as a chain (SyncDiff's variant)."""

    kind: PoseKind = "vector"
    """What of its latents passes, see `models.unet.pose.POSES`; "none": nothing, but windows are
    still generated one after the other."""
    width: int = 8
    """Width of the bottleneck, for `channel` and `vector`."""
    lag: int = 1
    """How many frames before a window the pose frame lies: 1 is the frame just before it."""

    def __post_init__(self) -> None:
        if self.lag < 1:
            raise ValueError(f"a pose must lie at least 1 frame before its window, got {self.lag}")


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
    """`LipSyncUNet` arguments; its channels, audio width and pose follow from the other parts."""
    pose: PoseConfig | None = None
    """The earlier frame that windows are shown; None: windows overlap instead, as LatentSync's."""
    autoencoder: dict[str, Any] = field(default_factory=dict)
    """`kind`, "kl", "patch" or "taesd", and that one's arguments."""
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


def config_values(config: LatentSyncConfig) -> dict[str, Any]:
    """A configuration as plain values; without a pose it has no entry for one."""
    values = asdict(config)
    if config.pose is None:
        del values["pose"]
    return values


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
