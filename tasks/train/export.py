"""From the checkpoints of a finished run to the one folder that everything else uses."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from datasets.errors import UserError
from models.files.new_output import replacing_folder
from tasks.sync.network_files import save_syncnet
from tasks.train.assemble import load_trained_model, load_trained_syncnet
from tasks.train.facts import stage_digests, stage_names
from tasks.train.stages import TrainingJob, dataset_digest, read_result
from tasks.weights.bundle import ABOUT, BundleFacts, code_version
from tasks.weights.licences import needed_licences
from tasks.weights.signing import sign_folder

BUNDLE = "bundle"


def describe_bundle(job: TrainingJob) -> BundleFacts:
    """The content of `bundle.json`."""
    digest = dataset_digest(job.dataset)
    about: BundleFacts = {
        "recipe": job.recipe.name,
        "configuration": asdict(job.recipe),
        "resolution": job.recipe.resolution,
        "dataset_digest": digest,
        "mask": job.recipe.model.mask,
        "crop": job.recipe.model.crop,
        "reference": job.recipe.model.reference,
        "audio": job.recipe.model.audio,
        "code_version": code_version(),
        "stages": stage_digests(job.recipe, digest),
    }
    licences = needed_licences(job.recipe.model.audio, job.recipe.audio_weights)
    return {**about, "licence": licences[0].name} if licences else about


def check_place(output: Path) -> None:
    """Check that a bundle can be put into a folder, before days of training.

    Raises:
        UserError: a file or folder of the user's is in its place.
    """
    folder = output / BUNDLE
    taken = any(folder.iterdir()) if folder.is_dir() else os.path.lexists(folder)
    if taken and not (folder / ABOUT).is_file():
        raise UserError(
            f"{folder} holds something other than a bundle and would be replaced: choose another "
            "output folder, or move it"
        )


def save_bundle(job: TrainingJob) -> Path:
    """Write model, sync network and `bundle.json` to `output/bundle`, all or nothing.

    A bundle of the same run that is already there is left as it is.

    Raises:
        ModelFileError: a stage is not finished.
        OSError: the disk is full; a previous bundle is untouched.
    """
    folder = job.output / BUNDLE
    description = describe_bundle(job)
    if _is_of(folder, description):
        return folder
    with replacing_folder(folder) as unfinished:
        _write(job, unfinished, description)
    return folder


def _write(job: TrainingJob, folder: Path, description: BundleFacts) -> None:
    import torch

    model = load_trained_model(job.recipe, job.output)
    model.save(folder)
    judge = load_trained_syncnet(job.recipe, job.output, torch.device("cpu"))
    save_syncnet(folder / "syncnet", judge.network, judge.config, judge.threshold)
    text = json.dumps(description, indent=1, sort_keys=True)
    (folder / ABOUT).write_text(text, encoding="utf-8")
    sign_folder(folder)


def _is_of(folder: Path, description: BundleFacts) -> bool:
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == json.loads(json.dumps(description)))


def run_metrics(job: TrainingJob) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """What each finished stage measured, and how many seconds it took."""
    done = {name: read_result(job, name) for name in stage_names(job.recipe)}
    finished = {name: each for name, each in done.items() if each is not None}
    metrics = {name: dict(each["metrics"]) for name, each in finished.items()}
    return metrics, {name: float(each["seconds"]) for name, each in finished.items()}
