"""Adapting a finished model by a small adapter (LoRA), instead of training it again.

Only the adapter learns; the model stays as it is. The loop, the batches and the loss are those of
the U-Net's stages, so an interrupted adaptation goes on, too.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.errors import UserError
from datasets.shards.clips import ClipStore
from datasets.store.manifest import config_digest
from models.latentsync.model import LatentSync
from models.unet.lora import TARGETS
from tasks.recipes.adapt import AdaptConfig
from tasks.recipes.config import StageConfig
from tasks.recipes.recipe import recipe
from tasks.runtime.device import resolve_device
from tasks.sync.network_files import load_syncnet
from tasks.train.context import StageContext, Stores
from tasks.train.loop import train
from tasks.train.objective import Rank
from tasks.train.pixel_losses import PixelLosses
from tasks.train.unet import UNetObjective
from tasks.weights.adapter import (
    AdapterFacts,
    base_digest,
    save_adapter,
)
from tasks.weights.bundle import read_bundle

ADAPTER = "adapter"
"""The finished adapter's folder in the output folder."""
HELD_OUT = 0.25
"""Share of the clips, at least one, on which the loss is measured and not trained."""


@dataclass
class Say:
    """A reporter that hands lines on."""

    say: Callable[[str], None]

    def progress(self, line: str) -> None:
        self.say(line)


class PersonStores(Stores):
    """The clips of one speaker, or of all, whatever their split: some are held out by their ids."""

    speaker: str = ""

    def _of(self, resolution: int, held_out: bool) -> ClipStore:
        key = (f"{self.speaker}/{held_out}", resolution)
        if key not in self.opened:
            store = ClipStore(self.dataset, resolution=resolution)
            mine = [
                number
                for number, clip in enumerate(store.clips)
                if not self.speaker or clip.speaker == self.speaker
            ]
            if len(mine) < 2:
                speakers = sorted({clip.speaker for clip in store.clips})
                raise UserError(
                    f"{self.dataset} has {len(mine)} clips of {self.speaker or 'anybody'}, 2 are "
                    f"needed: one to learn from and one to measure on. Its speakers: "
                    f"{', '.join(speakers[:8])}{', ...' * (len(speakers) > 8)}"
                )
            count = max(1, round(HELD_OUT * len(mine)))
            chosen = mine[-count:] if held_out else mine[:-count]
            store.clips = store.clips.chosen(np.array(chosen))
            self.opened[key] = store
        return self.opened[key]

    def train(self, resolution: int) -> ClipStore:
        return self._of(resolution, False)

    def held_out(self, resolution: int) -> tuple[ClipStore, int]:
        store = self._of(resolution, True)
        return store, store.clips.speakers()


class Adapters(nn.Module):
    """The adapters' weights alone, so that a checkpoint holds nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.names = {}
        for name, weight in network.named_parameters():
            if ".lora_" in name:
                self.names[name.replace(".", "/")] = name
                self.register_parameter(name.replace(".", "/"), weight)

    def exported(self) -> dict[str, Tensor]:
        """The weights by peft's names."""
        return {
            self.names[name].replace(".default.", "."): weight.detach().cpu().contiguous()
            for name, weight in self.named_parameters()
        }


def refuse_shares(config: StageConfig) -> None:
    """Adaptations are trained by one worker.

    Raises:
        UserError: weights are to be shared out.
    """
    if config.parallel != "ddp":
        raise UserError(
            f"parallel must be ddp for adaptations, got {config.parallel!r}: one worker trains "
            "them, and nothing is shared out"
        )
    if getattr(config, "audio_blocks", 0):
        raise UserError(
            "audio_blocks must be 0 for adaptations: an adapter holds changes of the U-Net, and "
            "the audio encoder stays as it is in the bundle"
        )


def adapt(
    bundle: Path,
    dataset: Path,
    output: Path,
    config: AdaptConfig,
    speaker: str = "",
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> AdapterFacts:
    """Train an adapter for a bundle and write it to `output/adapter`.

    Args:
        bundle: the model.
        dataset: folder with `index.json`.
        output: folder for checkpoints, curves and the adapter.
        config: how it is trained.
        speaker: only this speaker's clips; empty for all.
        device: cpu, cuda, cuda:N or mps.
        say: called with lines of progress.

    Raises:
        UserError: the dataset has too few clips of the speaker, the output folder holds another
            adaptation, or weights are to be shared out.
        ModelFileError: the bundle is damaged.
    """
    # It takes seconds to import, and nothing else needs it.
    from peft import LoraConfig, inject_adapter_in_model

    refuse_shares(config)
    about = read_bundle(bundle)
    worker = Rank(resolve_device(device))
    model = LatentSync.load(bundle, worker.device)
    model.requires_grad_(False)
    chosen = recipe("tiny")
    torch.manual_seed(chosen.seed)
    inject_adapter_in_model(
        LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(TARGETS)),
        model.unet,
    )
    stores = PersonStores(dataset)
    stores.speaker = speaker
    data = stores.train(int(about["resolution"])).digest
    facts: AdapterFacts = {
        "part": "unet",
        "base": base_digest(bundle),
        "rank": config.rank,
        "alpha": config.alpha,
        "speaker": speaker,
        "dataset_digest": data,
        "steps": config.steps,
        "heldout_before": None,
        "heldout_after": None,
    }
    # With more steps it goes on.
    digest = config_digest({**facts, "steps": 0, "config": asdict(replace(config, steps=0))})
    stage = StageContext(
        "training", output, digest, replace(chosen, model=model.config), stores, worker, Say(say)
    )
    syncnet = load_syncnet(bundle / "syncnet", worker.device) if config.losses.sync else None
    losses = PixelLosses.load(config, syncnet, worker.device)
    objective = UNetObjective(model, config, stage, losses)
    adapters = Adapters(model.unet)
    objective.network = adapters
    # Every adapter begins as no change at all.
    facts["heldout_before"] = objective.measure().get("heldout_loss")
    train(objective, config, stage.run)
    facts["heldout_after"] = objective.measure().get("heldout_loss")
    save_adapter(output / ADAPTER, adapters.exported(), facts)
    return facts
