"""Weights and inputs of a parity case, drawn from names so that no file has to hold them.

Every array is a function of the case's salt, of its own name and of its shape:
`numpy.random.default_rng(crc32(name))`, float32 at the end.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Shapes = Mapping[str, Sequence[int] | None]
UNIFORM = {"lip": 255.0, "video": 1.0}
"""Inputs drawn uniformly from [0, 1), times this; all others are normal."""
NORMAL_SCALE = {"mfcc": 10.0}


def _generator(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))


def draw_array(salt: Any, name: str, shape: Sequence[int]) -> np.ndarray:
    """The input `name` of `shape`, float64."""
    rng = _generator(f"input:{salt}:{name}")
    if name in UNIFORM:
        return rng.random(tuple(shape)) * UNIFORM[name]
    return rng.standard_normal(tuple(shape)) * NORMAL_SCALE.get(name, 1.0)


def draw_input(salt: Any, name: str, shape: Sequence[int]) -> Tensor:
    """The input `name` of `shape`, as a float32 tensor."""
    return torch.from_numpy(draw_array(salt, name, shape).astype(np.float32))


def draw_pixels(salt: Any, name: str, shape: Sequence[int]) -> Tensor:
    """The pictures `name` of a step's case, uniform in [-1, 1), as a float32 tensor."""
    drawn = 2 * _generator(f"input:{salt}:{name}").random(tuple(shape)) - 1
    return torch.from_numpy(drawn.astype(np.float32))


def draw_faces(salt: Any, name: str, shape: Sequence[int]) -> Tensor:
    """Faces (f, h, w, 3) of a step's case, uniform uint8."""
    drawn = np.floor(256 * _generator(f"input:{salt}:{name}").random(tuple(shape)))
    return torch.from_numpy(drawn.astype(np.uint8))


def draw_weight(salt: Any, key: str, shape: Sequence[int]) -> Tensor:
    """The weight `key` of `shape`, float32."""
    noise = _generator(f"{salt}:{key}").standard_normal(tuple(shape))
    if key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(noise)
    elif key.endswith("running_mean"):
        value = 0.1 * noise
    elif len(shape) >= 2:
        value = noise / math.sqrt(math.prod(shape[1:]))
    elif key.endswith("weight"):
        value = 1 + 0.1 * noise
    else:
        value = 0.1 * noise
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def draw_weights(salt: Any, shapes: Shapes, prefix: str = "") -> dict[str, Tensor]:
    """A state dict of the given shapes; keys whose shape is null are left out.

    Args:
        prefix: put before a key where its weight is drawn, so that networks differ.
    """
    return {
        key: draw_weight(salt, prefix + key, shape)
        for key, shape in shapes.items()
        if shape is not None
    }


def fill(network: nn.Module, salt: Any, shapes: Shapes, prefix: str = "") -> dict[str, Tensor]:
    """Give a network the weights of a case, and return them.

    Entries without a shape, which are position tables, keep the network's own value.

    Raises:
        ValueError: the network has other entries.
    """
    own = network.state_dict()
    if own.keys() != shapes.keys():
        raise ValueError(f"keys differ: {sorted(own.keys() ^ shapes.keys())[:3]}")
    drawn = draw_weights(salt, shapes, prefix)
    network.load_state_dict({**own, **drawn})
    return drawn


def read_case(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description (empty when there is none) and the arrays of a case."""
    description = folder / f"{name}.json"
    config = json.loads(description.read_text(encoding="utf-8")) if description.is_file() else {}
    with np.load(folder / f"{name}.npz") as arrays:
        return config, {key: arrays[key] for key in arrays.files}


def relative_error(actual: Tensor | np.ndarray, expected: np.ndarray) -> float:
    """max |a-b| / max |b|; infinite when the shapes differ or a value is not finite."""
    got = actual.detach().cpu().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    if got.shape != expected.shape or not np.isfinite(got).all():
        return math.inf
    scale = np.abs(expected).max(initial=0.0)
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    return float(difference / scale) if scale else float(difference)
