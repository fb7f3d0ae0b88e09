"""How a `LatentSync` is stored on disk: `config.json`, and safetensors of each network."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.files.errors import ModelFileError
from models.files.new_output import replacing_file, save_weights
from models.files.state_dict import load_weights, read_state_dict
from models.latentsync.config import LatentSyncConfig, PoseConfig, check_inputs

CONFIG = "config.json"


def write_model(folder: Path, config: Mapping[str, Any], networks: Mapping[str, nn.Module]) -> None:
    """Write the networks, then the configuration; each file appears whole or not at all.

    Networks without weights get no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    for name, network in networks.items():
        state = {
            key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()
        }
        if state:
            with replacing_file(folder / f"{name}.safetensors") as file:
                save_weights(state, file)
    with replacing_file(folder / CONFIG) as file:
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_config(folder: Path) -> LatentSyncConfig:
    """The configuration of a model folder.

    Raises:
        ModelFileError: it is missing, not JSON, has other fields, or names another mask or crop.
    """
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{folder} is not a model folder: there is no {CONFIG} in it"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {error}") from error
    known = {each.name for each in fields(LatentSyncConfig)}
    if not isinstance(values, dict) or not values.keys() <= known:
        extra = sorted(values.keys() - known) if isinstance(values, dict) else type(values).__name__
        raise ModelFileError(
            f"{path} is not this version's: it holds {extra} besides {sorted(known)}"
        )
    check_inputs(folder, values)
    try:
        if values.get("pose") is not None:
            values["pose"] = PoseConfig(**values["pose"])
        return LatentSyncConfig(**values)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path} does not describe a model: {error}") from error


def read_part(folder: Path, name: str, network: nn.Module) -> None:
    """Load the weights in a network's file into it; it may be on the meta device.

    Raises:
        ModelFileError: the file is missing, damaged, or for a network of another shape.
    """
    if network.state_dict():
        path = folder / f"{name}.safetensors"
        load_weights(network, read_state_dict(path), path)
    left = [key for key, value in _tensors(network) if value.is_meta]
    if left:
        raise ModelFileError(f"{folder} has no values for {name}.{left[0]}")


def _tensors(network: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*network.named_parameters(), *network.named_buffers()]
