"""Checkpoints that survive being killed: either the old one is there or the new one.

A checkpoint is one `checkpoint.pt` per stage with the whole training state: weights,
optimizer, scaler, averaged weights, step, seed and the digest of what is trained. The
random numbers and the position in the data are functions of (seed, step, rank), so they
need no place of their own. Files are read without running code that they may contain.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from datasets.store.atomic import replacing, sweep
from models.files.errors import ModelFileError

CHECKPOINT = "checkpoint.pt"


class _Writer:
    """A binary file for `torch.save` that keeps the operating system's own error.

    torch turns a failed write, for instance on a full disk, into a RuntimeError about
    its zip format; the real error is what the user must see.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        if self.error is None:
            try:
                self.file.flush()
            except OSError as error:
                self.error = error

    def finish(self) -> None:
        """Raise what stood in the way."""
        self.flush()
        if self.error is not None:
            raise self.error


def save_state(path: Path, state: Mapping[str, object]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) atomically.

    Raises:
        OSError: the disk is full or not writable; the previous file is untouched.
    """
    # Killed ones would fill the disk with gigabytes that nobody sees.
    sweep(path.parent)
    with replacing(path) as file:
        writer = _Writer(file)
        try:
            torch.save(state, writer)  # type: ignore[arg-type]
        finally:
            writer.finish()


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU.

    Raises:
        ModelFileError: the file is missing, damaged or holds anything but plain data.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no checkpoint {path}: train this stage first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFileError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}): delete it and "
            "train this stage again"
        ) from error
    if not isinstance(state, dict):
        raise ModelFileError(f"{path} holds a {type(state).__name__}, not a training state")
    return state


def load_trained_weights(path: Path) -> dict[str, Tensor]:
    """The weights that a finished stage hands on: the averaged ones where there are any."""
    state = load_state(path)
    weights: dict[str, Tensor] = dict(state["network"])
    weights.update(state.get("average") or {})
    return weights
