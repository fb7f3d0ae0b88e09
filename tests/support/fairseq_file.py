"""Checkpoints in fairseq's layout, which hold an instance of a class that is not installed here."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

NAMES = ("fairseq", "fairseq.data", "fairseq.data.dictionary")


@contextmanager
def _pretended() -> Iterator[type]:
    """fairseq's dictionary class under its own name, while a file is written."""
    kind = type("Dictionary", (), {"__module__": NAMES[-1]})
    modules = {name: ModuleType(name) for name in NAMES}
    vars(modules[NAMES[-1]])["Dictionary"] = kind
    sys.modules.update(modules)
    try:
        yield kind
    finally:
        for name in NAMES:
            del sys.modules[name]


def write_fairseq(
    path: Path,
    entries: Mapping[str, Tensor],
    config: Mapping[str, Any],
    task: Mapping[str, Any] | None = None,
    fine_tuned: bool = False,
    **more: Any,
) -> Path:
    """Write a checkpoint as fairseq does.

    Args:
        path: the file.
        entries: names and tensors of the model, as pre-training names them.
        config: its configuration of the model; that of the task is `task`.
        fine_tuned: in the layout of a sequence-to-sequence model that was made from it.
        more: further entries of the file.
    """
    task = {"normalize": True, "stack_order_audio": 4, **(task or {})}
    model: dict[str, Any] = {**config}
    weights = dict(entries)
    if fine_tuned:
        # Its own configuration says other things, which must not be taken for the encoder's.
        model = {
            "layer_norm_first": not config["layer_norm_first"],
            "encoder_attention_heads": 1,
            "w2v_args": {"model": {**config}, "task": task},
        }
        task = {"normalize": False, "stack_order_audio": 1}
        weights = {
            f"encoder.w2v_model.{key}": value
            for key, value in entries.items()
            if not key.startswith("final_proj.")
        }
        weights["decoder.embed_tokens.weight"] = torch.zeros(3, 4)
    with _pretended() as kind:
        dictionary = kind()
        vars(dictionary).update(symbols=["<s>", "a"], count=[1, 1], indices={"<s>": 0, "a": 1})
        torch.save(
            {
                "args": None,
                "cfg": {"model": model, "task": task},
                "model": weights,
                "criterion": None,
                "optimizer_history": [{"num_updates": 3}],
                "task_state": {"dictionaries": [dictionary]},
                "extra_state": {"best": np.float64(1.5), "epoch": 2},
                **more,
            },
            path,
        )
    return path
