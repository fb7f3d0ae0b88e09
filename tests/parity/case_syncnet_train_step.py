"""One training step of StableSyncNet: loss, embeddings, gradients and what AdamW changes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.syncnet.loss import cosine_loss
from tasks.recipes.config import SyncNetConfig
from tasks.sync.network_files import build_syncnet
from tasks.train.batches import SyncBatch
from tasks.train.objective import Objective
from tasks.train.pixel_losses import lower_half
from tasks.train.syncnet import pairs_loss
from tests.parity.draw import draw_input, draw_pixels, fill, read_case
from tests.parity.outcome import Errors
from tests.parity.steps import gradient_errors, plain_errors, train_step

PREFIX = "syncnet_train_step"
DELTA_BAR = 2e-6
"""Of weights, absolute; the step itself is the learning rate."""


class OneBatch(Objective):
    """The sync network's loss of given windows; keeps what it found."""

    def __init__(self, network: nn.Module, batch: SyncBatch) -> None:
        self.network, self.given = network, batch
        self.found: dict[str, Tensor] = {}

    def batch(self, step: int, share: int = 0) -> SyncBatch:
        return self.given

    def loss(self, batch: SyncBatch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, vision, audio = pairs_loss(self.network, batch)
        each = cosine_loss(vision, audio, batch.labels, reduction="none")
        self.found = {"loss": loss, "each": each, "vision": vision, "audio": audio}
        return loss, {}


def draw_batch(case: dict[str, Any]) -> SyncBatch:
    """The windows of a case."""
    return SyncBatch(
        lower_half(draw_pixels(case["salt"], "frames", case["frames"])),
        draw_input(case["salt"], "mel6", case["mel6"]),
        torch.tensor(case["labels"], dtype=torch.float32),
    )


def run(folder: Path, name: str) -> Errors:
    case, arrays = read_case(folder, name)
    config = SyncNetConfig(
        network="stable",
        options={"config": case["config"]},
        steps=1,
        batch_size=len(case["labels"]),
        lr=case["lr"],
        weight_decay=case["weight_decay"],
        clip=case["clip"],
    )
    network = build_syncnet(config.network, config.options)
    before = fill(network, case["salt"], case["state_dict"], "syncnet.")
    objective = OneBatch(network, draw_batch(case))
    gradients = train_step(objective, config)
    after = network.state_dict()
    errors = {
        **plain_errors(objective.found, arrays),
        **gradient_errors(gradients, case["trained"], arrays),
    }
    for key, expected in arrays.items():
        if key.startswith("delta:"):
            entry = key.removeprefix("delta:")
            change = (after[entry] - before[entry]).numpy()
            errors[key] = (float(np.abs(change - expected).max()), DELTA_BAR)
    return errors
