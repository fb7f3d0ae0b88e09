"""Finished stages of one training, given to another."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from models.files.new_output import new_folder


def reuse_stages(source: Path, target: Path, stages: Sequence[str]) -> None:
    """Give a second training the first one's finished stages; it checks whether they fit."""
    for stage in stages:
        if (source / stage).is_dir() and not (target / stage).exists():
            with new_folder(target / stage) as folder:
                shutil.copytree(source / stage, folder, dirs_exist_ok=True)
