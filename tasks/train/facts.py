"""What the result of a stage depends on, as plain facts and as one digest of them."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from datasets.store.manifest import config_digest
from models.latentsync.config import config_values
from tasks.recipes.config import STAGES, Recipe, UNetConfig

CODE_VERSION = 4
"""Raised by one whenever a change to a stage's code changes its result."""
UPSTREAM: Mapping[str, tuple[str, ...]] = {
    "autoencoder": (),
    "syncnet": (),
    "syncnet_latents": ("autoencoder",),
    "stage1": ("autoencoder",),
    "stage2": ("autoencoder", "syncnet", "stage1"),
}
"""The stages whose results each stage uses whatever the recipe says."""
FREE = (
    "checkpoint_every",
    "compile",
    "log_every",
    "micro_batch",
    "keep_last",
    "parallel",
    "patience",
    "reading_workers",
    "sample_every",
    "test_every",
)
"""Fields of a stage that do not change what it learns, but for rounding. With another number of
processes that read, it goes on."""

POSED = ("pose_noise", "pose_dropout")
"""Fields of a stage that nothing depends on where a model is shown no earlier frame."""
HEARING = ("audio_blocks", "audio_lr")
"""The same where the audio encoder is frozen."""

Facts = dict[str, Any]
"""Name -> value that JSON knows; `upstream.NAME` is the digest of another stage."""


def stage_names(chosen: Recipe) -> list[str]:
    """The stages that a recipe has, in order."""
    return [name for name in STAGES if chosen.stage(name) is not None]


def stage_facts(chosen: Recipe, dataset_digest: str) -> dict[str, Facts]:
    """For each stage all that its result depends on."""
    found: dict[str, Facts] = {}
    for name in stage_names(chosen):
        config = asdict(chosen.stage(name))  # type: ignore[arg-type]
        for field in (*FREE, *(POSED if chosen.model.pose is None else ())):
            config.pop(field, None)
        if not config.get("audio_blocks"):
            for field in HEARING:
                config.pop(field, None)
        _leave_out_pixels(config)
        facts = {
            "code": CODE_VERSION,
            "seed": chosen.seed,
            "dataset": dataset_digest,
            **flat({name: config}),
            **flat(_model_part(chosen, name)),
        }
        for each in upstream(chosen, name):
            if each in found:
                facts[f"upstream.{each}"] = facts_digest(found[each])
        # Tuples become lists, as they do in a file.
        found[name] = json.loads(json.dumps(facts))
    return found


def upstream(chosen: Recipe, name: str) -> tuple[str, ...]:
    """The stages whose results a stage uses."""
    config = chosen.stage(name)
    if isinstance(config, UNetConfig) and config.losses.sync:
        judge = "syncnet_latents" if config.losses.judges_latents else "syncnet"
        return tuple(dict.fromkeys((*UPSTREAM[name], judge)))
    return UPSTREAM[name]


def facts_digest(facts: Facts) -> str:
    """One text for all facts of a stage."""
    return config_digest(facts)


def stage_digests(chosen: Recipe, dataset_digest: str) -> dict[str, str]:
    """For each stage a digest of all that its result depends on."""
    facts = stage_facts(chosen, dataset_digest)
    return {name: facts_digest(each) for name, each in facts.items()}


def _leave_out_pixels(config: dict[str, Any]) -> None:
    """Drop fields with values that trainings had before there were others."""
    if config.get("sees") == "pixels":
        del config["sees"]
    losses = config.get("losses", {})
    if losses.get("sync_on") == "pixels" or not losses.get("sync"):
        losses.pop("sync_on", None)


def _model_part(chosen: Recipe, stage: str) -> dict[str, Any]:
    """The parts of the recipe's model that a stage uses."""
    model = config_values(chosen.model)
    if stage == "syncnet":
        return {}
    if stage in ("autoencoder", "syncnet_latents"):
        names = ("resolution", "latent_channels", "scaling_factor", "autoencoder")
        part: dict[str, Any] = {"model": {name: model[name] for name in names}}
        if stage == "syncnet_latents":
            part["autoencoder_weights"] = chosen.autoencoder_weights
        return part
    # The choice of reference only matters when frames are repainted.
    del model["reference"]
    return {
        "model": model,
        "autoencoder_weights": chosen.autoencoder_weights,
        "audio_weights": chosen.audio_weights,
    }


def flat(values: Mapping[str, Any], prefix: str = "") -> Facts:
    """Nested dictionaries with dotted names; empty ones stay."""
    found: Facts = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
