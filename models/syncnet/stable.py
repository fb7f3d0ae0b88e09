"""StableSyncNet: are these 16 frames and this sound in sync (LatentSync, section 3.3).

`config_by_name` has the four published configurations; `StableSyncNet` takes any of the
same kind. The published checkpoint loads through `load_stable_syncnet`.
"""

from pathlib import Path
from typing import TypedDict

import torch
from torch import nn
from torch.nn import functional as F

from models.files.state_dict import load_weights, read_state_dict
from models.syncnet.stable_blocks import DownEncoder, Factor


class EncoderConfig(TypedDict):
    """Arguments of a `DownEncoder`."""

    in_channels: int
    block_out_channels: list[int]
    downsample_factors: list[Factor]
    attn_blocks: list[int]
    """1 for each stage with attention, else 0."""
    dropout: float


class Config(TypedDict):
    """Both encoders of a `StableSyncNet`."""

    audio_encoder: EncoderConfig
    visual_encoder: EncoderConfig


def _encoder(
    channels: int, widths: list[int], factors: list[Factor], attention: tuple[int, ...] = ()
) -> EncoderConfig:
    """`attention` counts stages from 1."""
    return {
        "in_channels": channels,
        "block_out_channels": widths,
        "downsample_factors": factors,
        "attn_blocks": [int(stage in attention) for stage in range(1, len(widths) + 1)],
        "dropout": 0.0,
    }


def pixel_config(attention: bool = True) -> Config:
    """16 RGB frames, lower half at 256: visual input (48, 128, 256), audio (1, 80, 52).

    With attention this is the published checkpoint's configuration (401 M parameters).
    """
    audio = [32, 64, 128, 256, 512, 1024, 2048]
    visual = [64, 128, 256, 256, 512, 1024, 2048, 2048]
    return {
        "audio_encoder": _encoder(
            1, audio, [[2, 1], 2, 2, 1, 2, 2, [2, 3]], (4, 5) if attention else ()
        ),
        "visual_encoder": _encoder(
            48, visual, [[1, 2], 2, 2, 2, 2, 2, 2, 2], (5, 6) if attention else ()
        ),
    }


def latent_config() -> Config:
    """16 latents of the whole face at 256: visual input (64, 32, 32), audio (1, 80, 52)."""
    audio, visual = [32, 64, 128, 256, 512, 1024], [64, 128, 256, 256, 512, 1024]
    return {
        "audio_encoder": _encoder(1, audio, [[2, 1], 2, 2, 2, 2, [2, 3]]),
        "visual_encoder": _encoder(64, visual, [2, 2, 2, 1, 2, 2]),
    }


def pixel_25_config() -> Config:
    """25 RGB frames, lower half at 256: visual input (75, 128, 256), audio (1, 80, 80)."""
    audio = [64, 128, 256, 256, 512, 1024]
    visual = [128, 128, 256, 256, 512, 512, 1024, 1024]
    return {
        "audio_encoder": _encoder(1, audio, [2, 2, 2, 2, 2, 2]),
        "visual_encoder": _encoder(75, visual, [[1, 2], 2, 2, 2, 2, 2, 2, 2]),
    }


def config_by_name(name: str) -> Config:
    """One of the four published configurations.

    Raises:
        ValueError: the name is not one of theirs.
    """
    configs = {
        "16_pixel_attn": pixel_config(),
        "16_pixel": pixel_config(attention=False),
        "16_latent": latent_config(),
        "25_pixel": pixel_25_config(),
    }
    if name not in configs:
        raise ValueError(f"unknown StableSyncNet {name!r}, expected one of {sorted(configs)}")
    return configs[name]


class StableSyncNet(nn.Module):
    """Two encoders with unit-length, non-negative embeddings.

    Args:
        config: configuration of both encoders.
        gradient_checkpointing: save memory in training.
    """

    def __init__(self, config: Config, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = DownEncoder(
            **config["audio_encoder"], gradient_checkpointing=gradient_checkpointing
        )
        self.visual_encoder = DownEncoder(
            **config["visual_encoder"], gradient_checkpointing=gradient_checkpointing
        )

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """(b, 48, h/2, w), or (b, 16, 3, h/2, w), in [-1, 1] -> (b, d)."""
        if frames.ndim == 5:
            frames = frames.flatten(1, 2)
        return F.normalize(self.visual_encoder(frames).flatten(1), dim=1)

    def encode_mel(self, mel: torch.Tensor) -> torch.Tensor:
        """(b, 1, 80, 52) -> (b, d)."""
        return F.normalize(self.audio_encoder(mel).flatten(1), dim=1)

    def forward(self, frames: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of windows of frames and of their sound.

        Args:
            frames: (b, 48, h/2, w) lower half of the aligned face in [-1, 1], frames in
                the channels; (b, 16, 3, h/2, w) is taken too.
            mel: (b, 1, 80, 52).

        Returns:
            vision and audio, (b, d) each.

        Raises:
            ValueError: the encoders end at different widths for inputs of these sizes.
        """
        vision, audio = self.encode_frames(frames), self.encode_mel(mel)
        if vision.shape != audio.shape:
            raise ValueError(
                f"frames {tuple(frames.shape)} give {vision.shape[1]} features but mel "
                f"{tuple(mel.shape)} gives {audio.shape[1]}: these sizes do not fit the config"
            )
        return vision, audio


def load_stable_syncnet(path: Path, config: Config | None = None) -> StableSyncNet:
    """The network of a published checkpoint (`stable_syncnet.pt`), in eval mode.

    Args:
        path: `{"global_step", "state_dict"}` or a bare state dict, .pt or .safetensors.
        config: defaults to the published 16-frame pixel configuration with attention.

    Raises:
        ModelFileError: the file is not such a checkpoint.
    """
    with torch.device("meta"):
        network = StableSyncNet(config or pixel_config())
    load_weights(network, read_state_dict(path), path)
    return network.eval()
