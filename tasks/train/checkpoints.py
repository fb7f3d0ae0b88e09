"""Checkpoints that survive being killed: either the old one is there or the new one.

A checkpoint is one `checkpoint.pt` per stage with the whole training state: weights,
optimizer, scaler, averaged weights, step, seed and the digest of what is trained. The
random numbers and the position in the data are functions of (seed, step, share), so they
need not be stored. Files are read without running any code they may contain. Of weights that are
sharded there is a folder instead, see `tasks.train.sharded_files`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from datasets.errors import UserError
from datasets.store.atomic import replacing, sweep
from models.files.errors import ModelFileError

CHECKPOINT = "checkpoint.pt"


class _Writer:
    """A binary file for `torch.save` that preserves the operating system's error.

    torch turns a failed write, for instance on a full disk, into a RuntimeError about
    its zip format; the user must see the real error.
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
        """Raise the operating system's error, if there was one."""
        self.flush()
        if self.error is not None:
            raise self.error


def save_state(path: Path, state: Mapping[str, object]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) atomically.

    Raises:
        UserError: a tensor holds a number that is not finite; the previous file is untouched.
        OSError: the disk is full or not writable; the previous file is untouched.
    """
    if name := not_finite(state):
        raise UserError(
            f"{name} holds numbers that are not finite, so no checkpoint was written over {path}: "
            "train on from there with a lower learning rate"
        )
    # Leftovers of killed writers would fill the disk with gigabytes that nobody sees.
    sweep(path.parent)
    with replacing(path) as file:
        writer = _Writer(file)
        try:
            torch.save(state, writer)  # type: ignore[arg-type]
        finally:
            writer.finish()


def load_state(path: Path, lazily: bool = False) -> dict[str, Any]:
    """Load what `save_state` wrote, on the CPU.

    Args:
        lazily: leave tensors in the file until they are used, for a look at the rest.

    Raises:
        ModelFileError: the file is missing, damaged or holds anything but plain data.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no checkpoint {path}: train this stage first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except Exception as error:
        raise ModelFileError(
            f"the checkpoint {path} cannot be read ({type(error).__name__}): delete it and "
            "train this stage again"
        ) from error
    if not isinstance(state, dict):
        raise ModelFileError(f"{path} holds a {type(state).__name__}, not a training state")
    return state


def not_finite(state: object, name: str = "the state") -> str:
    """The name of the first tensor with a number that is not finite; empty if there is none."""
    if isinstance(state, Tensor):
        return "" if not state.is_floating_point() or bool(torch.isfinite(state).all()) else name
    if isinstance(state, Mapping):
        parts = ((str(key), value) for key, value in state.items())
    elif isinstance(state, list | tuple):
        parts = ((f"{name}[{index}]", value) for index, value in enumerate(state))
    else:
        return ""
    return next((found for key, value in parts if (found := not_finite(value, key))), "")
