"""One training run: its stages in order, each resumed or skipped, then the bundle.

Without Ray, for tuning a recipe on this machine:

    python -m tasks.train DATASET OUT --recipe tiny --set stage1.steps=20 --stages stage1

A stage is done when `OUT/<stage>/done.json` carries the digest of everything its result
depends on: its own configuration, the dataset, the seed, and the stages it builds on.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch

from datasets.shards.index import check_crop, read_index
from datasets.store.atomic import write_atomic
from datasets.store.manifest import config_digest
from tasks.recipes.config import STAGES, Recipe
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.runtime.device import resolve_device
from tasks.train.context import DONE, StageContext, StageResult, Stores
from tasks.train.loop import Rank, Reporter
from tasks.train.pixel_losses import check_trepa
from tasks.weights.by_name import weight_file

CODE_VERSION = 3
"""Raised by one whenever a change to a stage's code changes its result."""
UPSTREAM = {
    "autoencoder": (),
    "syncnet": (),
    "stage1": ("autoencoder",),
    "stage2": ("autoencoder", "syncnet", "stage1"),
}
"""The stages whose results each stage uses."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything that the workers of a run need to know; it travels to them pickled."""

    dataset: Path
    """Folder with `index.json`."""
    output: Path
    """Folder of checkpoints, curves and results."""
    recipe: Recipe
    """What is trained and how."""
    device: str = "cpu"
    """cpu, cuda, cuda:N or mps."""
    tracking_uri: str = ""
    """MLflow's store; empty: curves go to files only."""
    runs: tuple[tuple[str, str], ...] = ()
    """(stage, MLflow run id)."""


def stage_names(chosen: Recipe) -> list[str]:
    """The stages that a recipe has, in order."""
    return [name for name in STAGES if chosen.stage(name) is not None]


def stage_digests(chosen: Recipe, dataset_digest: str) -> dict[str, str]:
    """For each stage a digest of all that its result depends on."""
    digests: dict[str, str] = {}
    for name in stage_names(chosen):
        config = asdict(chosen.stage(name))  # type: ignore[arg-type]
        # How often something is saved does not change what is learned, and with another number of
        # processes that read, a stage goes on.
        for field in ("checkpoint_every", "log_every", "reading_workers"):
            config.pop(field)
        digests[name] = config_digest(
            {
                "code": CODE_VERSION,
                "stage": name,
                "config": config,
                "seed": chosen.seed,
                "model": _model_part(chosen, name),
                "dataset": dataset_digest,
                "upstream": [digests[each] for each in UPSTREAM[name] if each in digests],
            }
        )
    return digests


def _model_part(chosen: Recipe, stage: str) -> dict[str, object]:
    """The parts of the recipe's model that a stage uses."""
    model = chosen.model
    if stage == "syncnet":
        return {}
    if stage == "autoencoder":
        parts = [model.resolution, model.latent_channels, model.scaling_factor, model.autoencoder]
        return {"autoencoder": parts}
    published = [chosen.autoencoder_weights, chosen.audio_weights]
    used = asdict(model)
    # The choice of reference only matters when frames are repainted.
    del used["reference"]
    return {"model": used, "published": published}


def dataset_digest(dataset: Path) -> str:
    """The digest in a dataset's index.

    Raises:
        UserError: there is no dataset in that folder.
    """
    return str(read_index(dataset)["digest"])


def check(job: TrainingJob) -> None:
    """Find everything that is bound to fail before anything starts.

    Raises:
        UserError: the device, the dataset or a file of published weights is missing, or the
            dataset's faces are aligned differently from the model's.
        ModelFileError: a file of the weights table is damaged, or the video network's file is not
            one.
    """
    resolve_device(job.device)
    chosen = job.recipe
    check_crop(job.dataset, read_index(job.dataset), chosen.model.crop)
    names = [chosen.autoencoder_weights, chosen.audio_weights]
    names += [chosen.syncnet.weights, chosen.stage1.weights]
    for stage in (chosen.stage1, chosen.stage2):
        names += [stage.lpips_weights] * bool(stage.losses.lpips)
        names += [stage.trepa_weights] * bool(stage.losses.trepa)
    for name in names:
        if name:
            weight_file(name)
    for stage in (chosen.stage1, chosen.stage2):
        if stage.losses.trepa:
            check_trepa(stage.trepa_weights)


def read_result(job: TrainingJob, stage: str) -> StageResult | None:
    """What a finished stage measured and how long it took; None if it is not finished."""
    digest = stage_digests(job.recipe, dataset_digest(job.dataset))[stage]
    try:
        done = json.loads((job.output / stage / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    finished = isinstance(done, dict) and done.get("digest") == digest
    return cast(StageResult, done) if finished else None


def remaining(job: TrainingJob, stages: Sequence[str] | None = None) -> list[str]:
    """The stages that are still to be trained, in order."""
    wanted = stage_names(job.recipe) if stages is None else stages
    return [
        name for name in stage_names(job.recipe) if name in wanted and not read_result(job, name)
    ]


def run_stages(
    job: TrainingJob, worker: Rank, reporter: Reporter, stages: Sequence[str] | None = None
) -> None:
    """Train what remains. Each worker of the run calls this with its own rank."""
    todo = remaining(job, stages)
    digests = stage_digests(job.recipe, dataset_digest(job.dataset))
    stores = Stores(job.dataset)
    for name in todo:
        began = time.monotonic()
        stage = StageContext(name, job.output, digests[name], job.recipe, stores, worker, reporter)
        metrics = _runner(name)(stage)
        if worker.leads:
            reporter.finished(name)
            done: StageResult = {
                "digest": digests[name],
                "metrics": metrics,
                "seconds": time.monotonic() - began,
            }
            write_atomic(job.output / name / DONE, json.dumps(done, indent=1))
        if worker.world_size > 1:
            # The next stage reads the files of this one.
            torch.distributed.barrier()


def _runner(name: str) -> Callable[[StageContext], dict[str, float]]:
    if name == "autoencoder":
        from tasks.train.autoencoder import run
    elif name == "syncnet":
        from tasks.train.syncnet import run
    else:
        from tasks.train.unet import run
    return run


class PrintReporter:
    """Progress on the terminal; curves only in the stages' own files."""

    def metrics(self, stage: str, values: dict[str, float], step: int) -> None:
        """Do nothing: `metrics.jsonl` has the points."""

    def progress(self, line: str) -> None:
        print(line, flush=True)

    def finished(self, stage: str) -> None:
        """Do nothing: no points are buffered."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train in this process, without Ray and MLflow."""
    parser = argparse.ArgumentParser(prog="python -m tasks.train", description=__doc__)
    parser.add_argument("dataset", type=Path, help="folder with index.json")
    parser.add_argument("output", type=Path, help="folder for checkpoints and curves")
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--set", action="append", default=[], metavar="stage1.steps=20")
    parser.add_argument("--stages", default=",".join(STAGES), help="comma-separated")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    chosen = recipe(options.recipe, parse_overrides(options.set))
    job = TrainingJob(options.dataset.resolve(), options.output.resolve(), chosen, options.device)
    check(job)
    worker = Rank(resolve_device(options.device))
    run_stages(job, worker, PrintReporter(), options.stages.split(","))
    for name in stage_names(chosen):
        if done := read_result(job, name):
            print(f"{name}: {json.dumps(done['metrics'])} in {done['seconds']:.0f} s")
    return 0
