"""Adapting the StableSyncNet of a finished model by a small adapter (LoRA)."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from datasets.errors import UserError
from datasets.store.manifest import config_digest
from models.syncnet.stable import StableSyncNet
from tasks.recipes.adapt import SyncAdaptConfig
from tasks.recipes.recipe import recipe
from tasks.runtime.device import resolve_device
from tasks.sync.network_files import load_syncnet
from tasks.train.adapt import ADAPTER, Adapters, PersonStores, Say, refuse_shares
from tasks.train.context import StageContext
from tasks.train.cutters import SyncCutter
from tasks.train.loop import train
from tasks.train.objective import Rank
from tasks.train.syncnet import SyncObjective
from tasks.weights.adapter import AdapterFacts, base_digest, save_adapter

TARGETS = ("conv1", "conv2", "to_q", "to_k", "to_v", "to_out.0")
"""What an adapter of a StableSyncNet changes: the convolutions of its blocks, and attention."""


def adapt_syncnet(
    bundle: Path,
    dataset: Path,
    output: Path,
    config: SyncAdaptConfig,
    speaker: str = "",
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> AdapterFacts:
    """Train an adapter for a bundle's sync network and write it to `output/adapter`.

    Args:
        bundle: the model.
        dataset: folder with `index.json`.
        output: folder for checkpoints, curves and the adapter.
        config: how it is trained.
        speaker: only this speaker's clips; empty for all.
        device: cpu, cuda, cuda:N or mps.
        say: called with lines of progress.

    Raises:
        UserError: the bundle's sync network is no StableSyncNet, the dataset has too few clips of
            the speaker, or the output folder holds another adaptation.
        ModelFileError: the bundle is damaged.
    """
    # It takes seconds to import, and nothing else needs it.
    from peft import LoraConfig, inject_adapter_in_model

    refuse_shares(config)
    worker = Rank(resolve_device(device))
    loaded = load_syncnet(bundle / "syncnet", worker.device)
    network = loaded.network
    if not isinstance(network, StableSyncNet):
        raise UserError(
            f"the sync network of {bundle} is a {type(network).__name__}, which is too small for "
            "adapters: train it again with train-latentsync --stages syncnet, or give a bundle "
            "with a StableSyncNet"
        )
    trained = loaded.config
    config = replace(
        config,
        resolution=trained.resolution,
        num_frames=trained.num_frames,
        min_distance=trained.min_distance,
        options=trained.options,
    )
    chosen = recipe("tiny")
    torch.manual_seed(chosen.seed)
    inject_adapter_in_model(
        LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(TARGETS)), network
    )
    stores = PersonStores(dataset)
    stores.speaker = speaker
    store, (held_out, _) = stores.train(config.resolution), stores.held_out(config.resolution)
    facts: AdapterFacts = {
        "part": "syncnet",
        "base": base_digest(bundle, "syncnet"),
        "rank": config.rank,
        "alpha": config.alpha,
        "speaker": speaker,
        "dataset_digest": store.digest,
        "steps": config.steps,
        "heldout_before": None,
        "heldout_after": None,
    }
    # With more steps it goes on.
    digest = config_digest({**facts, "steps": 0, "config": asdict(replace(config, steps=0))})
    stage = StageContext("training", output, digest, chosen, stores, worker, Say(say))
    stream = stage.stream(SyncCutter(config), config, config.resolution)
    objective = SyncObjective(network, config, store, held_out, stage.seed, worker, stream)
    adapters = Adapters(network)
    objective.network = adapters
    # Every adapter begins as no change at all.
    facts["heldout_before"] = objective.measure()["heldout_loss"]
    train(objective, config, stage.run)
    facts["heldout_after"] = objective.measure()["heldout_loss"]
    save_adapter(output / ADAPTER, adapters.exported(), facts)
    return facts
