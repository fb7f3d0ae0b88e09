"""Frechet distance, the one-step estimate of x0, and SyncNet's cosine loss."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from models.judges.frechet import GaussianStatistics, frechet_distance
from models.latentsync.diffusion import make_scheduler, one_step_x0
from models.syncnet.loss import cosine_loss
from tests.parity.draw import draw_input, read_case, relative_error

PREFIX = "losses"
_FORMULA = re.compile(
    r"(?:(?P<scale>[-\d.e]+)\*)?"
    r"input\((?P<name>\w+),\[(?P<shape>[\d, ]+)\]\)"
    r"(?:(?P<add>[+-][\d.e]+))?"
)


def run(folder: Path, name: str) -> float:
    case, arrays = read_case(folder, name)
    salt = case["salt"]
    errors = []
    if "frechet" in arrays:
        errors.append(_frechet(case["frechet"], salt, arrays["frechet"]))
    if "x0" in arrays:
        spec = case["one_step"]
        x0 = one_step_x0(
            draw_input(salt, "xt", spec["xt"]),
            draw_input(salt, "eps", spec["eps"]),
            torch.tensor(spec["timesteps"]),
            make_scheduler(),
        )
        errors.append(relative_error(x0, arrays["x0"]))
    if "cosine_loss" in arrays:
        spec = case["cosine"]
        vision, audio = (
            F.normalize(_formula(spec[key], salt).abs(), dim=1) for key in ("ve", "ae")
        )
        loss = cosine_loss(vision, audio, torch.tensor(spec["y"]), reduction="none")
        errors.append(relative_error(loss, arrays["cosine_loss"]))
    return max(errors, default=math.inf)


def _formula(text: str, salt: Any) -> torch.Tensor:
    """The array of a description such as `1.3*input(fb,[220,16])+0.2`."""
    found = _FORMULA.search(text)
    if found is None:
        raise ValueError(f"unknown description of an input: {text!r}")
    shape = [int(size) for size in found["shape"].split(",")]
    drawn = draw_input(salt, found["name"], shape)
    return drawn * float(found["scale"] or 1) + float(found["add"] or 0)


def _frechet(spec: dict[str, Any], salt: Any, expected: np.ndarray) -> float:
    sets = [
        _formula(each, salt) if isinstance(each, str) else draw_input(salt, f"f{key}", each)
        for key, each in sorted(spec.items())
    ]
    statistics = [GaussianStatistics(int(each.shape[-1])) for each in sets]
    for each, features in zip(statistics, sets, strict=True):
        each.update(features)
    return relative_error(np.asarray(frechet_distance(*statistics)), expected)
