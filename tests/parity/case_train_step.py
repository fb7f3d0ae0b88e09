"""One training step of the U-Net: prediction, parts of the loss, picture and gradients."""

from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from models.files.state_dict import load_weights
from models.judges.lpips import VggLpips, convert_vgg
from models.judges.videomae import VideoMAE, VideoMAEConfig, convert_v2
from models.latentsync.diffusion import mix_noise
from models.latentsync.model import LatentSync
from tasks.recipes.config import LossWeights, SyncNetConfig, UNetConfig
from tasks.sync.network_files import LoadedSyncNet, build_syncnet
from tasks.train.batches import UNetBatch
from tasks.train.objective import Objective
from tasks.train.pixel_losses import PixelLosses
from tasks.train.unet import Denoised, choose_trained, denoise, encode_batch
from tests.parity.draw import draw_input, draw_pixels, draw_weights, fill, read_case
from tests.parity.outcome import BAR, Errors
from tests.parity.steps import build_model, gradient_errors, plain_errors, train_step

PREFIX = "train_step"
PARTS = {"recon_loss": "noise", "sync_loss": "sync", "lpips_loss": "lpips", "trepa_loss": "trepa"}
"""The reference's names of the loss' parts, and ours."""


class OneBatch(Objective):
    """The U-Net's loss of a given window with given noise; keeps what it found."""

    found: Denoised

    def __init__(self, model: LatentSync, losses: PixelLosses, case: dict[str, Any]) -> None:
        self.network: nn.Module = model.unet
        self.model, self.losses = model, losses
        self.given, self.timesteps = draw_batch(case), torch.tensor(case["timesteps"])
        shared, own = (
            draw_input(case["salt"], name, case[name]) for name in ("noise_shared", "noise_own")
        )
        self.noise = mix_noise(shared[:, :, :1], own, case["noise_alpha"])

    def batch(self, step: int, share: int = 0) -> UNetBatch:
        return self.given

    def loss(self, batch: UNetBatch) -> tuple[Tensor, dict[str, Tensor]]:
        latents = encode_batch(self.model, batch)
        self.found = denoise(self.model, self.losses, batch, latents, self.noise, self.timesteps)
        return self.found.total, {}


def draw_batch(case: dict[str, Any]) -> UNetBatch:
    """The window of a case; nothing in it counts more than the rest."""
    salt = case["salt"]
    target, reference = (draw_pixels(salt, key, case[key]) for key in ("target", "reference"))
    return UNetBatch(
        target=target,
        surroundings=target,
        swapped=torch.zeros(len(target)),
        reference=reference,
        tokens=draw_input(salt, "audio", case["audio"]),
        mouth=torch.zeros(*target.shape[:2], 4),
        mel=draw_input(salt, "mel", case["mel"]),
    )


def draw_syncnet(case: dict[str, Any]) -> LoadedSyncNet:
    """The frozen sync network of a case."""
    config = SyncNetConfig(
        network="stable",
        options={"config": case["syncnet"]},
        resolution=case["syncnet_resolution"],
        num_frames=case["frames"],
        steps=0,
        batch_size=1,
        lr=0.0,
    )
    network = build_syncnet(config.network, config.options)
    fill(network, case["salt"], case["syncnet_state_dict"], "syncnet.")
    return LoadedSyncNet(network.requires_grad_(False).eval(), config, threshold=0.5)


def draw_lpips(case: dict[str, Any]) -> VggLpips:
    """LPIPS of a case: a narrow VGG16, and linear layers without negative weights.

    Raises:
        ValueError: the widths are not a fraction of VGG16's.
    """
    salt, widths = case["salt"], case["vgg_widths"]
    network = VggLpips(divide=64 // widths[0])
    if [len(each) for each in network.linear] != widths:
        raise ValueError(f"vgg_widths {widths} are not a fraction of VGG16's")
    shapes: dict[str, list[int]] = {}
    position = 0
    for level in network.levels:
        for layer in level.children():
            for kind, weight in layer.named_parameters():
                shapes[f"features.{position}.{kind}"] = list(weight.shape)
            position += 1
        position += 1  # the pooling between two levels
    linear = {f"lin{level}.model.1.weight": [1, width, 1, 1] for level, width in enumerate(widths)}
    drawn = {key: value.abs() for key, value in draw_weights(salt, linear, "lpips.").items()}
    load_weights(network, convert_vgg(draw_weights(salt, shapes, "vgg."), drawn), Path("vgg"))
    return network.requires_grad_(False).eval()


def draw_trepa(case: dict[str, Any]) -> VideoMAE:
    """The video network of a case."""
    network = VideoMAE(VideoMAEConfig(**case["videomae"]))
    weights = draw_weights(case["salt"], case["videomae_state_dict"], "videomae.")
    load_weights(network, convert_v2(weights), Path("videomae"))
    return network.requires_grad_(False).eval()


def choose(unet: nn.Module, trained: list[str]) -> None:
    """Let those weights learn that the case trains, by the recipe's word for them.

    Raises:
        ValueError: the recipes have no word for them.
    """
    for what in get_args(get_type_hints(UNetConfig)["trains"]):
        choose_trained(unet, what)
        if {name for name, each in unet.named_parameters() if each.requires_grad} == set(trained):
            return
    raise ValueError(f"no recipe trains just those {len(trained)} weights")


def part_errors(found: Denoised, case: dict[str, Any], expected: np.ndarray) -> Errors:
    """Error of each part, relative to itself; ours carry their weights, which are taken off."""
    errors = {}
    for name, value in zip(case["parts"], expected.tolist(), strict=True):
        if name == "loss":
            actual = float(found.total)
        elif weight := case["weights"][name]:
            actual = float(found.parts[PARTS[name]]) / weight
        else:
            actual = float(found.parts.get(PARTS[name], 0.0))
        errors[f"parts: {name}"] = (abs(actual - value) / (abs(value) or 1.0), BAR)
    return errors


def run(folder: Path, name: str) -> Errors:
    case, arrays = read_case(folder, name)
    weights = LossWeights(**{PARTS[key]: value for key, value in case["weights"].items()})
    model = build_model(case, arrays)
    choose(model.unet, case["trained"])
    losses = PixelLosses(
        weights,
        draw_syncnet(case) if weights.sync else None,
        draw_lpips(case) if weights.lpips else None,
        draw_trepa(case) if weights.trepa else None,
    )
    objective = OneBatch(model, losses, case)
    config = UNetConfig(steps=1, batch_size=1, lr=1e-5, losses=weights)
    gradients = train_step(objective, config)
    found = objective.found
    shown = {"prediction": found.prediction[:, :, ::5]}
    if "pixels" in arrays and found.generated is not None:
        shown["pixels"] = found.generated.flatten(0, 1)[::5, :, ::4, ::4]
    return {
        **part_errors(found, case, arrays["parts"]),
        **plain_errors(shown, arrays),
        **gradient_errors(gradients, case["trained"], arrays),
    }
