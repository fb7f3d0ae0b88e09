"""A bundle with real, untrained networks of the debug recipe's size."""

import json
from pathlib import Path

import torch

from models.latentsync.model import LatentSync
from tasks.recipes.recipe import recipe
from tasks.sync.network_files import build_syncnet, save_syncnet
from tasks.train.assemble import model_config


def make_real_bundle(folder: Path, seed: int = 0) -> Path:
    """Write it and return the folder. Other seeds give other U-Nets, but the same judge."""
    chosen = recipe("debug")
    torch.manual_seed(1)
    syncnet = build_syncnet(chosen.syncnet.network, chosen.syncnet.options)
    save_syncnet(folder / "syncnet", syncnet, chosen.syncnet, 0.5)
    torch.manual_seed(seed)
    LatentSync(model_config(chosen, "stage2")).save(folder)
    about = {
        "recipe": "debug",
        "resolution": chosen.resolution,
        "dataset_digest": "d" * 64,
        "mask": chosen.model.mask,
        "crop": chosen.model.crop,
        "reference": chosen.model.reference,
        "audio": chosen.model.audio,
        "code_version": "1",
    }
    (folder / "bundle.json").write_text(json.dumps(about), encoding="utf-8")
    return folder
