"""What the cases of whole steps share: a model of drawn weights, and one step of training."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.convert.unet import config_from_reference
from models.latentsync.config import LatentSyncConfig
from models.latentsync.model import LatentSync
from tasks.recipes.config import StageConfig
from tasks.train.loop import train
from tasks.train.objective import Objective, Rank, StageRun
from tests.parity.draw import fill, relative_error
from tests.parity.outcome import BAR, Errors

GRADIENT_BAR = 1e-3
"""Relative to the largest number of an array of gradients or of norms."""
CPU = torch.device("cpu")


def build_model(case: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> LatentSync:
    """The model of a case, in evaluation mode.

    Its mask is the model's own, but where the case brings one, `mask` (1, R, R) and
    `latent_mask` (1, r, r), for a resolution that nothing is published for.
    """
    autoencoder = {**case["vae"], "kind": "kl"}
    model = LatentSync(
        LatentSyncConfig(
            resolution=case["resolution"],
            num_frames=case["frames"],
            audio="mel",
            latent_channels=autoencoder.pop("latent_channels"),
            scaling_factor=case["scaling_factor"],
            unet={**config_from_reference(case["config"])},
            autoencoder=autoencoder,
        )
    )
    fill(model.unet, case["salt"], case["state_dict"])
    vae: Any = model.autoencoder
    fill(vae.vae, case["salt"], case["vae_state_dict"], "vae.")
    for key in ("mask", "latent_mask"):
        if key in arrays:
            getattr(model, key).copy_(torch.from_numpy(arrays[key])[None])
    return model.requires_grad_(False).eval()


class Silent:
    """A reporter that tells nobody."""

    def metrics(self, stage: str, values: dict[str, float], step: int) -> None:
        pass

    def progress(self, line: str) -> None:
        pass

    def finished(self, stage: str) -> None:
        pass


@torch.enable_grad()
def train_step(objective: Objective, config: StageConfig) -> dict[str, Tensor]:
    """One step of the training loop; returns the gradients, as they are before clipping."""
    gradients: dict[str, Tensor] = {}

    def keep(name: str, weight: nn.Parameter) -> None:
        weight.register_post_accumulate_grad_hook(
            lambda each: gradients.update({name: each.grad.clone()})
        )

    for name, weight in objective.network.named_parameters():
        if weight.requires_grad:
            keep(name, weight)
    with tempfile.TemporaryDirectory() as folder:
        train(
            objective,
            config,
            StageRun("parity", Path(folder), "", 0, Rank(CPU), Silent()),
        )
    return gradients


def gradient_errors(
    gradients: Mapping[str, Tensor], trained: Iterable[str], arrays: Mapping[str, np.ndarray]
) -> Errors:
    """Errors of the norms, of all gradients together, and of those that are given whole.

    Raises:
        ValueError: other weights have a gradient than should.
    """
    names = list(trained)
    if gradients.keys() != set(names):
        raise ValueError(f"other weights learn: {sorted(gradients.keys() ^ set(names))[:3]}")
    norms = torch.stack([gradients[name].double().norm() for name in names])
    errors = {
        "grad_norms": relative_error(norms, arrays["grad_norms"]),
        "grad_total": relative_error(norms.norm(), arrays["grad_total"]),
    }
    for key, expected in arrays.items():
        if key.startswith("grad:"):
            errors[key] = relative_error(gradients[key.removeprefix("grad:")], expected)
    return {key: (error, GRADIENT_BAR) for key, error in errors.items()}


def plain_errors(found: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray]) -> Errors:
    """Relative error of each array of a name."""
    return {key: (relative_error(value, arrays[key]), BAR) for key, value in found.items()}
