"""Adapters as files: a few megabytes that change a bundle's U-Net, or its sync network, for one
person or language.

A folder with `adapter_model.safetensors`, in peft's names, and `adapter.json`, which says what it
was trained for and how well it did.
"""

import json
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from datasets.errors import UserError
from datasets.store.atomic import content_digest, write_atomic
from models.files.errors import ModelFileError
from models.unet.lora import merge_adapter
from tasks.weights.signing import check_folder, sign_folder

WEIGHTS, ABOUT = "adapter_model.safetensors", "adapter.json"
Part = Literal["unet", "syncnet"]
"""Which network of a bundle an adapter changes."""
FILES: dict[Part, str] = {"unet": "unet.safetensors", "syncnet": "syncnet/model.safetensors"}


class AdapterFacts(TypedDict):
    """Content of `adapter.json`."""

    part: Part
    """What it changes."""
    base: str
    """Digest of the network that it changes, see `base_digest`."""
    rank: int
    alpha: int
    speaker: str
    """Whose clips it was trained on; empty: all of the dataset's."""
    dataset_digest: str
    steps: int
    heldout_before: float | None
    """Loss on held-out clips without the adapter; None if none is long enough."""
    heldout_after: float | None
    """The same with it."""


def base_digest(bundle: Path, part: Part = "unet") -> str:
    """sha256 of a network of a bundle.

    Raises:
        ModelFileError: there is none.
    """
    path = bundle / FILES[part]
    if not path.is_file():
        raise ModelFileError(f"{bundle} is not a model bundle: it has no {FILES[part]}")
    return content_digest(path)


def adapter_files(folder: Path) -> tuple[Path, Path]:
    """The files of an adapter.

    Raises:
        UserError: one of them is missing.
    """
    files = folder / WEIGHTS, folder / ABOUT
    for path in files:
        if not path.is_file():
            raise UserError(
                f"{folder} is not an adapter: it has no {path.name}. Give the folder that "
                "adapt-model wrote"
            )
    return files


def save_adapter(folder: Path, state: dict[str, Tensor], facts: AdapterFacts) -> None:
    """Write an adapter; what describes it comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / WEIGHTS, save(state))
    write_atomic(folder / ABOUT, json.dumps(facts, indent=1))
    sign_folder(folder, (WEIGHTS, ABOUT))


def read_adapter(folder: Path) -> tuple[AdapterFacts, dict[str, Tensor]]:
    """What `save_adapter` wrote.

    Raises:
        UserError: the folder is not an adapter.
        ModelFileError: its file is damaged, or not signed although signatures are asked for.
    """
    try:
        weights, about = adapter_files(folder)
        facts = json.loads(about.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{folder / ABOUT} cannot be read: train it again") from error
    check_folder(folder, (WEIGHTS, ABOUT))
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{folder / WEIGHTS} cannot be read: train it again") from error
    # Those of earlier versions change the U-Net.
    return cast(AdapterFacts, {"part": "unet", **facts}), state


def apply_adapter(model: Any, bundle: Path, folder: Path) -> None:
    """Change a bundle's loaded model by an adapter of its U-Net.

    Args:
        model: a `LatentSync` that was loaded from `bundle`.
        bundle: its folder.
        folder: the adapter's.

    Raises:
        UserError: it is not an adapter, changes something else, or was trained for another model.
        ModelFileError: its file is damaged.
    """
    facts, _ = read_adapter(folder)
    if facts["part"] != "unet":
        raise UserError(
            f"the adapter {folder} changes the {facts['part']}, which draws no faces: "
            "adapt-model --merged writes a bundle with it"
        )
    apply_to_part(model.unet, bundle, folder)


def apply_to_part(network: nn.Module, bundle: Path, folder: Path) -> None:
    """Change the network of a bundle that an adapter is for.

    Args:
        network: as it is in `bundle`.
        bundle: the folder.
        folder: the adapter's.

    Raises:
        UserError: it is not an adapter, or was trained for another model.
        ModelFileError: its file is damaged.
    """
    facts, state = read_adapter(folder)
    if facts["base"] != base_digest(bundle, facts["part"]):
        raise UserError(
            f"the adapter {folder} was trained for another model than {bundle}: give the model "
            "that it was made from, or adapt this one"
        )
    try:
        merge_adapter(network, state, facts["alpha"])
    except ValueError as error:
        raise ModelFileError(f"the adapter {folder} does not fit: {error}") from error
