"""One window of inference: what the U-Net is shown, the latents of every step, the picture."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.latentsync.model import LatentSync
from tests.parity.draw import draw_faces, draw_input, read_case, relative_error
from tests.parity.outcome import BAR, Errors
from tests.parity.steps import build_model, plain_errors

PREFIX = "lipsync_window"
SHOWN = [0, 7]
"""Frames whose pictures a case holds, every third pixel of every third row."""
STEP_FRAMES = [0, 5]
"""Frames whose latents it holds after each step, every second cell."""


class Watcher:
    """Generates a window and keeps what goes into the U-Net and comes out of each step."""

    def __init__(self, model: LatentSync) -> None:
        self.model = model
        self.inputs = torch.empty(0)
        self.timesteps: list[int] = []
        self.latents: list[Tensor] = []

    def generate(self, case: Mapping[str, Any], pixels: Tensor) -> Tensor:
        """The repainted window (1, f, 3, R, R)."""
        salt = case["salt"]
        hook = self.model.unet.register_forward_pre_hook(self._before)
        try:
            return self.model.generate(
                pixels,
                pixels,
                draw_input(salt, "audio", case["audio"])[None],
                steps=case["steps"],
                guidance=case["guidance"],
                noise=draw_input(salt, "noise", case["noise"]),
                on_step=lambda done, steps, latents: self.latents.append(latents),
            )
        finally:
            hook.remove()

    def _before(self, unet: Any, arguments: tuple[Tensor, ...]) -> None:
        self.inputs = arguments[0][:1]
        self.timesteps.append(int(arguments[1][0]))


def combined_error(model: LatentSync, painted: Tensor, expected: np.ndarray) -> float:
    """Error of the whole picture, but for our soft edge where the reference's is hard.

    Args:
        painted: (n, 3, R, R).
        expected: (n, 3, R / 3, R / 3), not clipped.
    """
    alpha, mask = (each[0, 0, ::3, ::3] for each in (model.alpha, model.mask))
    same = ((mask == 1) | (alpha == 1)).expand(expected.shape)
    actual = painted[..., ::3, ::3]
    if actual.shape != expected.shape:
        return math.inf
    return relative_error(actual[same], expected.clip(-1, 1)[same.numpy()])


def run(folder: Path, name: str) -> Errors:
    case, arrays = read_case(folder, name)
    model = build_model(case, arrays)
    faces = draw_faces(case["salt"], "faces", case["faces"])
    watcher = Watcher(model)
    painted = watcher.generate(case, faces.permute(0, 3, 1, 2).float()[None] / 127.5 - 1)[0]
    width = model.config.latent_channels
    _, mask, masked, reference = watcher.inputs.split([width, 1, width, width], dim=1)
    steps = torch.stack([each[0][:, STEP_FRAMES] for each in watcher.latents])
    decoded = model.decode_window(watcher.latents[-1][:, :, SHOWN])[0]
    found = {
        "mask_latents": mask[:, :, 0],
        "masked_latents": masked[:, :, ::7],
        "reference_latents": reference[:, :, ::7],
        "step_latents": steps[..., ::2, ::2],
        "latents": watcher.latents[-1],
        "decoded": decoded[..., ::3, ::3],
        "timesteps": torch.tensor(watcher.timesteps),
    }
    combined = combined_error(model, painted[SHOWN], arrays["combined"])
    return {**plain_errors(found, arrays), "combined": (combined, BAR)}
