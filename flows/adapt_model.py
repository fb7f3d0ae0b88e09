"""Adapt a finished model, or its sync network, to one person or language by an adapter (LoRA).

    python -m flows.adapt_model DATASET --speaker NAME --output runs/adapter
    python -m flows.lip_sync VIDEO AUDIO OUT.mp4 --adapter runs/adapter/adapter

The model stays as it is. After an interruption the same command goes on from its last checkpoint.
"""

from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from datasets.store.lock import only_run
from flows.support.artifacts import say
from flows.support.cli import run
from flows.support.dataset_copy import local_copy
from flows.support.secrets import keep_secrets
from tasks.recipes.adapt import AdaptConfig, SyncAdaptConfig, adaptation
from tasks.registry.published import resolve_model
from tasks.registry.tracking import check_uri, default_uri
from tasks.runtime.device import device_name
from tasks.train.adapt import ADAPTER, adapt
from tasks.train.adapt_syncnet import adapt_syncnet
from tasks.train.merge import merge_bundle
from tasks.weights.adapter import WEIGHTS, AdapterFacts


@task(name="train-adapter", cache_policy=NO_CACHE)
@keep_secrets
def train_adapter(
    bundle: Path,
    dataset: Path,
    output: Path,
    config: AdaptConfig | SyncAdaptConfig,
    speaker: str,
    device: str,
) -> AdapterFacts:
    """Train it and write it to the output folder."""
    if isinstance(config, SyncAdaptConfig):
        return adapt_syncnet(bundle, dataset, output, config, speaker, device, say)
    return adapt(bundle, dataset, output, config, speaker, device, say)


@flow(name="adapt-model")
@keep_secrets
def adapt_model(
    dataset: str,
    model: str = "models:/latentsync@champion",
    output: str = "runs/adapter",
    speaker: str = "",
    recipe: str = "lora",
    rank: int | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    merged: str | None = None,
    device: str = "auto",
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Train an adapter for a finished model on the clips of one speaker, or on all of a dataset.

    Args:
        dataset: folder that refresh-dataset wrote, or its s3:// or gs:// address.
        model: models:/NAME@ALIAS, models:/NAME/VERSION, a published model such as latentsync-1.5,
            or a bundle folder.
        output: folder for checkpoints, curves and the adapter.
        speaker: only this speaker's clips; by default all.
        recipe: lora, or lora-256 for models of the published size; lora-syncnet for the
            StableSyncNet of a model.
        rank: of the adapter; larger ones can learn more and make larger files. By default the
            recipe's, as the next two.
        steps: optimizer steps.
        learning_rate: of AdamW, after a short warm-up.
        merged: also write the model with the adapter in its weights, as a bundle in this folder.
        device: cpu, cuda, cuda:N or mps; auto takes the best that this machine has.
        tracking_uri: MLflow's store; by default a SQLite file under runs.

    Returns:
        What adapter.json holds, and the adapter's folder.
    """
    bundle = resolve_model(model, check_uri(tracking_uri or default_uri()), say)
    folder = Path(output).resolve()
    config = adaptation(recipe, rank=rank, alpha=rank, steps=steps, lr=learning_rate)
    with only_run(folder):
        facts = train_adapter(
            bundle, local_copy(dataset), folder, config, speaker, device_name(device)
        )
    made = folder / ADAPTER
    size = (made / WEIGHTS).stat().st_size / 1e6
    if facts["heldout_before"] is not None and facts["heldout_after"] is not None:
        say(
            f"held-out loss {facts['heldout_before']:.4f} without the adapter, "
            f"{facts['heldout_after']:.4f} with it"
        )
    use = "--merged writes a bundle with it"
    if facts["part"] == "unet":
        use = f"lip-sync --adapter {made}"
    say(f"adapter {made} ({size:.1f} MB): {use}")
    if merged:
        whole = merge_bundle(bundle, made, Path(merged).resolve())
        say(f"bundle with the adapter {whole}: lip-sync --model {whole}")
    return {**facts, "adapter": str(made)}


main = partial(run, adapt_model)

if __name__ == "__main__":
    raise SystemExit(main())
