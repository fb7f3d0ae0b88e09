"""Networks small enough for tests, with weights that do something."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from models.latentsync.config import LatentSyncConfig
from models.latentsync.model import LatentSync
from models.syncnet.stable import StableSyncNet
from models.unet import LipSyncUNet

UNET: dict[str, Any] = {
    "in_channels": 13,
    "out_channels": 4,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "attention": ["full", "none"],
    "cross_attention_dim": 12,
    "attention_heads": 4,
    "norm_num_groups": 4,
    "motion_resolutions": [1, 2],
    "motion_heads": 4,
    "motion_norm_groups": 4,
}

# Heads and groups of the published networks, which the shapes of a checkpoint do not tell.
PUBLISHED: dict[str, Any] = {
    "block_out_channels": [32, 32],
    "layers_per_block": 1,
    "attention": ["full", "none"],
    "cross_attention_dim": 12,
    "motion_resolutions": [1, 2],
}


def shaken(network: nn.Module) -> nn.Module:
    """The network with every weight moved, so that no output is zero by initialisation."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return network


def count_runs(modules: Iterable[nn.Module]) -> list[int]:
    """How often each module has run from now on, kept up to date; recomputing counts."""
    counts: list[int] = []
    for index, module in enumerate(modules):
        counts.append(0)

        def count(*_: Any, index: int = index) -> None:
            counts[index] += 1

        module.register_forward_pre_hook(count)
    return counts


def small_unet(**options: Any) -> LipSyncUNet:
    torch.manual_seed(0)
    unet = LipSyncUNet(**{**UNET, **options})
    shaken(unet)
    return unet.eval()


def unet_inputs(frames: int = 3, channels: int = 13) -> tuple[torch.Tensor, ...]:
    """Sample, timesteps and audio for `small_unet`."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, channels, frames, 8, 8, generator=generator),
        torch.tensor([3, 700]),
        torch.randn(2, frames, 5, 12, generator=generator),
    )


def small_config(**changes: Any) -> LatentSyncConfig:
    values: dict[str, Any] = {
        "resolution": 64,
        "num_frames": 4,
        "audio": "mel",
        "latent_channels": 8,
        "scaling_factor": 1.0,
        "prediction_type": "sample",
        "unet": {
            "block_out_channels": [16, 16],
            "layers_per_block": 1,
            "attention": ["cross", "cross"],
            "attention_heads": 2,
            "norm_num_groups": 4,
            "motion_resolutions": [2],
            "motion_heads": 2,
            "motion_norm_groups": 4,
            "ff_mult": 1,
            "residual": True,
        },
        "autoencoder": {"kind": "patch", "encoder_width": 8, "decoder_width": 8},
    }
    return LatentSyncConfig(**{**values, **changes})


def small_model(**changes: Any) -> LatentSync:
    torch.manual_seed(0)
    return LatentSync(small_config(**changes)).eval()


def small_stable() -> StableSyncNet:
    torch.manual_seed(0)
    return StableSyncNet(
        {
            "audio_encoder": {
                "dropout": 0.0,
                "in_channels": 1,
                "block_out_channels": [32, 32, 96],
                "downsample_factors": [[2, 1], [4, 4], [10, 13]],
                "attn_blocks": [0, 0, 0],
            },
            "visual_encoder": {
                "dropout": 0.0,
                "in_channels": 48,
                "block_out_channels": [32, 32, 96],
                "downsample_factors": [[4, 8], [4, 4], [8, 8]],
                "attn_blocks": [0, 0, 0],
            },
        }
    ).eval()


def write_converted(folder: Path, network: StableSyncNet) -> Path:
    """As `python -m models.convert` does."""
    folder.mkdir(parents=True)
    about = {"kind": "stable_syncnet", **network.config}
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    return folder
