"""A bundle with an adapter in its weights."""

import json
import os
import shutil
from pathlib import Path

import torch

from datasets.errors import UserError
from models.files.new_output import replacing_folder
from models.latentsync.model import LatentSync
from tasks.sync.network_files import load_syncnet, save_syncnet
from tasks.weights.adapter import apply_adapter, apply_to_part, read_adapter
from tasks.weights.bundle import ABOUT, read_bundle
from tasks.weights.signing import SIGNATURE, sign_folder


def merge_bundle(bundle: Path, adapter: Path, folder: Path) -> Path:
    """Write a bundle whose U-Net or sync network has an adapter in its weights, all or nothing.

    Args:
        bundle: the model.
        adapter: the adapter's folder.
        folder: where to write; a bundle that is there is replaced.

    Raises:
        UserError: `folder` holds something else, or the adapter is for another model.
    """
    if os.path.lexists(folder) and not (folder / ABOUT).is_file():
        raise UserError(f"{folder} holds something other than a bundle: choose another folder")
    facts, _ = read_adapter(adapter)
    if facts["part"] == "unet":
        model = LatentSync.load(bundle)
        apply_adapter(model, bundle, adapter)
    else:
        judge = load_syncnet(bundle / "syncnet", torch.device("cpu"))
        apply_to_part(judge.network, bundle, adapter)
    with replacing_folder(folder) as unfinished:
        shutil.copytree(bundle, unfinished, dirs_exist_ok=True)
        if facts["part"] == "unet":
            model.save(unfinished)
        else:
            save_syncnet(unfinished / "syncnet", judge.network, judge.config, judge.threshold)
        about = {**read_bundle(bundle), "adapter": facts}
        text = json.dumps(about, indent=1, sort_keys=True)
        (unfinished / ABOUT).write_text(text, encoding="utf-8")
        (unfinished / SIGNATURE).unlink(missing_ok=True)
        sign_folder(unfinished)
    return folder
