"""One training run: its stages in order, each resumed or skipped, then the bundle.

Without Ray, for tuning a recipe on this machine:

    python -m tasks.train DATASET OUT --recipe tiny --set stage1.steps=20 --stages stage1

A stage is done when `OUT/<stage>/done.json` carries the digest of everything its result
depends on, see `tasks.train.facts`.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import torch

from datasets.errors import UserError
from datasets.shards.index import check_crop, read_index
from datasets.store.atomic import write_atomic
from tasks.recipes.config import Recipe, SyncNetConfig, UNetConfig
from tasks.recipes.files import RECIPE_FILE, write_recipe
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.runtime.device import resolve_device
from tasks.train.context import DONE, StageContext, StageResult, Stores
from tasks.train.earlier_work import OnNewData, Settled, read_record, settle
from tasks.train.facts import stage_digests, stage_names
from tasks.train.hearing import check_hearing
from tasks.train.objective import Rank, Reporter
from tasks.train.pixel_losses import check_trepa
from tasks.weights.by_name import weight_file
from tasks.weights.licences import check_accepted, needed_licences


@dataclass(frozen=True)
class TrainingJob:
    """Everything that the workers of a run need to know; it travels to them pickled."""

    dataset: Path | str
    """Folder or address with `index.json`."""
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
    stages: tuple[str, ...] = ()
    """The stages to train; empty: all of the recipe."""
    accepted: tuple[str, ...] = ()
    """Names of licences that were accepted."""

    @property
    def wanted(self) -> list[str]:
        """The stages to train, in order."""
        names = stage_names(self.recipe)
        return [name for name in names if name in self.stages] if self.stages else names

    @property
    def whole(self) -> bool:
        """Whether a bundle can come of it."""
        return self.wanted == stage_names(self.recipe)


def dataset_digest(dataset: Path | str) -> str:
    """The digest in a dataset's index.

    Raises:
        UserError: there is no dataset in that folder.
    """
    return str(read_index(dataset)["digest"])


def check(job: TrainingJob) -> list[str]:
    """Find everything that is bound to fail before anything starts.

    Returns:
        What a person should read first: licences that bind what is made with a model.

    Raises:
        UserError: the device, the dataset or a file of published weights is missing, a licence was
            not accepted, or the dataset's faces are aligned differently from the model's.
        ModelFileError: a file of the weights table is damaged, or the video network's file is not
            one.
    """
    resolve_device(job.device)
    chosen = job.recipe
    unknown = [name for name in job.stages if name not in stage_names(chosen)]
    if unknown:
        raise UserError(
            f"the recipe {chosen.name} has no stage {unknown[0]!r}: choose from "
            f"{', '.join(stage_names(chosen))}"
        )
    licences = needed_licences(chosen.model.audio, chosen.audio_weights)
    lines = check_accepted(licences, job.accepted, f"what the recipe {chosen.name} trains")
    if job.wanted != ["syncnet"]:
        # Alone it goes into no bundle, and may learn from faces that are cut out in any way.
        check_crop(job.dataset, read_index(job.dataset), chosen.model.crop)
    for name in dict.fromkeys(_weights_needed(job)):
        weight_file(name)
    for name in job.wanted:
        stage = chosen.stage(name)
        check_hearing(chosen, name)
        if isinstance(stage, UNetConfig) and stage.losses.trepa:
            check_trepa(stage.trepa_weights)
    return lines


def _weights_needed(job: TrainingJob) -> list[str]:
    """The published weights that the stages to be trained use."""
    chosen, names = job.recipe, []
    for name in job.wanted:
        stage = chosen.stage(name)
        if isinstance(stage, SyncNetConfig):
            names += [stage.weights, chosen.autoencoder_weights * (stage.sees == "latents")]
        elif isinstance(stage, UNetConfig):
            names += [chosen.autoencoder_weights, chosen.audio_weights, stage.weights]
            names += [stage.lpips_weights] * bool(stage.losses.lpips)
            names += [stage.trepa_weights] * bool(stage.losses.trepa)
            names += [chosen.stage1.weights] * (name == "stage2")
    return [name for name in names if name]


def read_result(job: TrainingJob, stage: str) -> StageResult | None:
    """What a finished stage measured and how long it took; None if it is not finished."""
    digest = stage_digests(job.recipe, dataset_digest(job.dataset))[stage]
    try:
        done = json.loads((job.output / stage / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    finished = isinstance(done, dict) and done.get("digest") == digest
    return cast(StageResult, done) if finished else None


def prepare_folder(
    job: TrainingJob, *, restart: bool = False, on_new_data: OnNewData = "refuse"
) -> Settled:
    """Decide what becomes of earlier work in the output folder, see `tasks.train.earlier_work`.

    Raises:
        UserError: something has changed and it was not said what to do.
    """
    return settle(
        job.output,
        job.recipe,
        dataset_digest(job.dataset),
        job.wanted,
        restart=restart,
        on_new_data=on_new_data,
    )


def keep_recipe(job: TrainingJob) -> Path:
    """Write the job's complete recipe into its folder, as a recipe file; returns its path."""
    path = job.output / RECIPE_FILE
    write_atomic(path, write_recipe(job.recipe, job.recipe.base or job.recipe.name))
    return path


def remaining(job: TrainingJob) -> list[str]:
    """The stages that are still to be trained, in order."""
    return [name for name in job.wanted if not read_result(job, name)]


def run_stages(
    job: TrainingJob,
    worker: Rank,
    reporter: Reporter,
    must_pause: Callable[[], bool] | None = None,
) -> None:
    """Train what remains. Each worker of the run calls this with its own rank.

    The output folder must have been prepared, see `prepare_folder`.

    Args:
        job: the training.
        worker: this process.
        reporter: takes lines of progress.
        must_pause: whether to write a checkpoint and end.

    Raises:
        ModelFileError: a stage that is built upon is not there.
        Paused: it was asked to.
    """
    todo = remaining(job)
    digests = stage_digests(job.recipe, dataset_digest(job.dataset))
    stores = Stores(job.dataset)
    for name in todo:
        began = time.monotonic()
        record = read_record(job.output / name)
        earlier = tuple(record["goes_on_from"]) if record else ()
        stage = StageContext(
            name,
            job.output,
            digests[name],
            job.recipe,
            stores,
            worker,
            reporter,
            earlier,
            must_pause,
        )
        metrics = _runner(name)(stage)
        if worker.leads:
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
    elif name in ("syncnet", "syncnet_latents"):
        from tasks.train.syncnet import run
    else:
        from tasks.train.unet import run
    return run


class PrintReporter:
    """Progress on the terminal; curves are in the stages' own files."""

    def progress(self, line: str) -> None:
        print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Train in this process, without Ray and MLflow."""
    parser = argparse.ArgumentParser(prog="python -m tasks.train", description=__doc__)
    parser.add_argument("dataset", help="folder with index.json, or its s3, gs or http address")
    parser.add_argument("output", type=Path, help="folder for checkpoints and curves")
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--set", action="append", default=[], metavar="stage1.steps=20")
    parser.add_argument("--stages", default="", help="comma-separated; by default all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--restart", action="store_true", help="begin changed stages again")
    parser.add_argument("--on-new-data", default="refuse", choices=get_args(OnNewData))
    parser.add_argument("--accept-licence", action="append", default=[], metavar="NAME")
    options = parser.parse_args(argv)
    chosen = recipe(options.recipe, parse_overrides(options.set))
    stages = tuple(name.strip() for name in options.stages.split(",") if name.strip())
    job = TrainingJob(
        options.dataset if "://" in options.dataset else Path(options.dataset).resolve(),
        options.output.resolve(),
        chosen,
        options.device,
        stages=stages,
        accepted=tuple(options.accept_licence),
    )
    for line in check(job):
        print(line)
    settled = prepare_folder(job, restart=options.restart, on_new_data=options.on_new_data)
    for line in settled.lines:
        print(line)
    keep_recipe(job)
    run_stages(job, Rank(resolve_device(options.device)), PrintReporter())
    for name in stage_names(chosen):
        if done := read_result(job, name):
            print(f"{name}: {json.dumps(done['metrics'])} in {done['seconds']:.0f} s")
    return 0
