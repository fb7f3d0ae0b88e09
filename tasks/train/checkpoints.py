"""Checkpoints that survive being killed: either the old one is there or the new one.

A checkpoint is one `checkpoint.pt` per stage with the whole training state: weights,
optimizer, scaler, averaged weights, step, seed and the digest of what is trained. The
random numbers and the position in the data are functions of (seed, step, rank), so they
need no place of their own. Files are read without running code that they may contain.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.files.errors import ModelFileError

CHECKPOINT = "checkpoint.pt"


class _Writer:
    """A binary file for `torch.save` that keeps the operating system's own error.

    torch turns a failed write, for instance on a full disk, into a RuntimeError about
    its zip format; the real error is what the user must see.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
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
        """Bring everything to the disk, or raise what stood in the way."""
        self.flush()
        try:
            if self.error is not None:
                raise self.error
            os.fsync(self.file.fileno())
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self.file.close()
        except OSError as error:
            # Closing flushes once more; the first error is the one to tell.
            if self.error is None:
                raise error


def save_state(path: Path, state: Mapping[str, object]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) atomically.

    Raises:
        OSError: the disk is full or not writable; the previous file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        writer = _Writer(temporary)
        try:
            torch.save(state, writer)  # type: ignore[arg-type]
        finally:
            writer.finish()
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
