"""The checkpoints in a stage's folder: which there are, which is the newest, which may go.

`checkpoint.pt`, or `checkpoint-STEP.shards` of sharded weights, is the newest; those before are
named after their steps. `best.pt`, or `best-STEP.shards`, has the best held-out score.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from tasks.train.checkpoints import CHECKPOINT, load_state
from tasks.train.sharded_files import SHARDED, read_all, read_facts

BEST = "best.pt"
"""The state with the best held-out score so far."""


def sharded_name(path: Path, step: int) -> Path:
    """What takes the place of a checkpoint's file where weights are sharded."""
    return path.with_name(f"{path.stem}-{step:08d}{SHARDED}")


def newest(folder: Path) -> Path | None:
    """The newest checkpoint of a stage; None if there is none.

    Raises:
        ModelFileError: it is damaged.
    """
    file = folder / CHECKPOINT
    sharded = max(folder.glob(f"{file.stem}-*{SHARDED}"), default=None)
    if sharded is None or not file.is_file():
        return sharded or (file if file.is_file() else None)
    return file if checkpoint_step(file) >= checkpoint_step(sharded) else sharded


def checkpoint_step(path: Path) -> int:
    """How many steps a checkpoint is of.

    Raises:
        ModelFileError: it is missing or damaged.
    """
    if path.suffix == SHARDED:
        return int(read_facts(path)["step"])
    return int(load_state(path, lazily=True)["step"])


def set_aside(path: Path) -> None:
    """Give the file of a checkpoint a second name by its step."""
    if path.is_file():
        named = path.with_name(f"{path.stem}-{checkpoint_step(path):08d}.pt")
        named.unlink(missing_ok=True)
        os.link(path, named)


def forget(path: Path, keep: int) -> None:
    """Remove all but the latest of the checkpoints that are named after their steps.

    Args:
        path: of the one that is not.
        keep: how many stay.
    """
    found = [*path.parent.glob(f"{path.stem}-*.pt"), *path.parent.glob(f"{path.stem}-*{SHARDED}")]
    found.sort(key=lambda each: (each.stem, each.suffix))
    for old in found[: max(0, len(found) - keep)]:
        with suppress(FileNotFoundError):
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink()


def trained_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that a stage hands on: the averaged ones if there are any.

    Args:
        folder: the stage's.

    Raises:
        ModelFileError: there is no checkpoint, or it is damaged.
    """
    return load_trained_weights(newest(folder) or folder / CHECKPOINT)


def load_trained_weights(path: Path) -> dict[str, Tensor]:
    """The same of one checkpoint."""
    if path.suffix == SHARDED:
        found = read_all(path, ("network.", "average."))
        parts = {name: name.partition(".") for name in found}
        return {
            rest: found[name]
            for part in ("network", "average")
            for name, (first, _, rest) in parts.items()
            if first == part
        }
    state = load_state(path)
    weights: dict[str, Tensor] = dict(state["network"])
    weights.update(state.get("average") or {})
    return weights
