"""Saving and loading a trained sync network as files without code."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from models.files.errors import ModelFileError
from models.files.new_output import save_weights
from models.files.state_dict import load_weights, read_state_dict
from models.syncnet.frame import FrameSyncNet
from models.syncnet.stable import Config, StableSyncNet, config_by_name
from tasks.recipes.config import SyncNetConfig

PAPER_THRESHOLD = 0.5
"""Cosine above which StableSyncNet calls a window in sync (LatentSync, section 3.3)."""
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def build_syncnet(kind: str, options: dict[str, Any]) -> nn.Module:
    """A sync network with fresh weights.

    Args:
        kind: "frame" or "stable".
        options: keyword arguments of FrameSyncNet; for "stable", `config` is the name of a
            published configuration, or a whole configuration.
    """
    if kind == "frame":
        return FrameSyncNet(**options)

    rest = {name: value for name, value in options.items() if name != "config"}
    config = options.get("config", "16_pixel_attn")
    chosen = cast(Config, config) if isinstance(config, dict) else config_by_name(config)
    return StableSyncNet(chosen, **rest)


def save_syncnet(folder: Path, network: nn.Module, config: SyncNetConfig, threshold: float) -> None:
    """Write network and configuration as files without code."""

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: each.contiguous().cpu() for name, each in network.state_dict().items()}
    save_weights(weights, folder / WEIGHTS_FILE)
    about = asdict(config) | {"threshold": threshold}
    (folder / CONFIG_FILE).write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")


@dataclass(frozen=True)
class LoadedSyncNet:
    """A sync network with what one needs to use it."""

    network: nn.Module
    """In eval mode, without gradient."""
    config: SyncNetConfig
    """How it was trained: window length, resolution, kind."""
    threshold: float
    """Cosine above which a pair counts as in sync."""


def load_syncnet(folder: Path, device: torch.device) -> LoadedSyncNet:
    """Load what `save_syncnet` wrote, frozen.

    Raises:
        ModelFileError: a file is missing, damaged or for another network.
    """

    path = folder / CONFIG_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        threshold = float(about.pop("threshold"))
        config = SyncNetConfig(**about)
        network = build_syncnet(config.network, config.options)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{path} is missing or does not describe a sync network ({error}): train it again"
        ) from error
    weights = folder / WEIGHTS_FILE
    load_weights(network, read_state_dict(weights), weights)
    network.requires_grad_(False)
    return LoadedSyncNet(network.to(device).eval(), config, threshold)
