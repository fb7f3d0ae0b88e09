"""A training run inside one Ray Train worker group.

One `TorchTrainer` runs all stages that remain, since starting workers and importing torch
costs as much as a short stage. Checkpoints and resume are the stages' own, so a group
that Ray restarts after a lost worker goes on where the last checkpoint is. Rank 0 writes curves
and progress to files; the caller's process prints the one and sends the others to MLflow.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from datasets.errors import UserError
from models.files.errors import ModelFileError
from tasks.runtime.ray_session import ray_session
from tasks.train.delivery import delivering
from tasks.train.objective import Rank
from tasks.train.stages import TrainingJob, run_stages

PROGRESS = "progress.log"
RAY_FOLDER = ".ray"
"""What Ray Train writes about a group; useless once the group has ended."""
RESTARTS = 2
"""How often a worker group may be restarted after it lost a worker."""
POLL_SECONDS = 0.3


class FileReporter:
    """Rank 0's side of the reporting: lines into a file, which the caller's process prints."""

    def __init__(self, job: TrainingJob) -> None:
        self.path = job.output / PROGRESS

    def progress(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _train_function(config: Mapping[str, TrainingJob]) -> None:
    """Train what remains; runs in every worker."""
    from ray import train
    from ray.train.torch import get_device

    job = config["job"]
    context = train.get_context()
    asked = torch.device(job.device)
    device = get_device() if asked.type == "cuda" and asked.index is None else asked
    worker = Rank(device, context.get_world_rank(), context.get_world_size())
    run_stages(job, worker, FileReporter(job))


def train_with_ray(
    job: TrainingJob,
    *,
    workers: int = 1,
    ray_address: str | None = None,
    on_line: Callable[[str], None] = print,
) -> None:
    """Train what remains of a job on a local Ray or a cluster.

    Args:
        job: what to train; its paths must be the same on all machines of a cluster.
        workers: processes that train together, one GPU each on CUDA.
        ray_address: of a running cluster; None starts a local one for this call.
        on_line: called with each line of progress.

    Raises:
        UserError, ModelFileError, OSError: what a worker found, unwrapped.
        ray.train.TrainingFailedError: anything else that went wrong in a worker.
    """
    import ray

    dataset = job.dataset.resolve() if isinstance(job.dataset, Path) else job.dataset
    job = replace(job, dataset=dataset, output=job.output.resolve())
    job.output.mkdir(parents=True, exist_ok=True)
    progress = job.output / PROGRESS
    progress.write_text("", encoding="utf-8")
    uses_gpu = torch.device(job.device).type == "cuda"
    with delivering(job, on_line), ray_session(address=ray_address):
        available = ray.cluster_resources()
        kind, needed = ("GPU", workers) if uses_gpu else ("CPU", workers)
        if available.get(kind, 0) < needed:
            raise UserError(
                f"{workers} training workers need {needed} {kind}s, but Ray has "
                f"{available.get(kind, 0):g}: use fewer workers or a larger cluster"
            )
        cpus = max(1, int(available["CPU"]) // workers) if not uses_gpu else 1
        _fit_in_background(job, workers, uses_gpu, cpus, progress, on_line)


def _fit_in_background(
    job: TrainingJob,
    workers: int,
    uses_gpu: bool,
    cpus: int,
    progress: Path,
    on_line: Callable[[str], None],
) -> None:
    """Wait for the trainer while passing on its lines.

    The trainer runs in a thread of its own, because in the main thread it would take
    over Ctrl-C and end the process as if it had succeeded.
    """
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            _fit(job, workers, uses_gpu, cpus)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    read = 0
    while True:
        alive = thread.is_alive()
        text = progress.read_text(encoding="utf-8")
        whole = text.rfind("\n") + 1
        for line in text[read:whole].splitlines():
            on_line(line)
        read = max(read, whole)
        if not alive:
            break
        thread.join(POLL_SECONDS)
    shutil.rmtree(job.output / RAY_FOLDER, ignore_errors=True)
    if failures:
        raise _cause(failures[0]) from failures[0]


def _fit(job: TrainingJob, workers: int, uses_gpu: bool, cpus: int) -> None:
    """Train; a group that lost a worker is restarted, one that raised is not."""
    from ray.train import TrainingFailedError

    for attempt in range(RESTARTS + 1):
        try:
            _trainer(job, workers, uses_gpu, cpus).fit()
            return
        except TrainingFailedError as error:
            if attempt == RESTARTS or not _lost_a_worker(error):
                raise


def _lost_a_worker(error: BaseException) -> bool:
    """Whether a worker's process died, as opposed to the train function raising an error.

    The other workers then raise connection errors, so one such failure decides.
    """
    failures = getattr(error, "worker_failures", {}) or {}
    return any(type(failure).__module__.startswith("ray.") for failure in failures.values())


def _trainer(job: TrainingJob, workers: int, uses_gpu: bool, cpus: int) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    return TorchTrainer(
        _train_function,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=uses_gpu,
            resources_per_worker={"CPU": cpus} | ({"GPU": 1} if uses_gpu else {}),
        ),
        run_config=RunConfig(
            # Under a known name Ray would look for a state of its own to resume from.
            name=f"run-{time.time_ns()}",
            storage_path=str(job.output / RAY_FOLDER),
            failure_config=FailureConfig(max_failures=0),
        ),
    )


def _cause(error: BaseException) -> BaseException:
    """The error that a worker raised for the user, unwrapped from Ray's."""

    for failure in (getattr(error, "worker_failures", None) or {}).values():
        if isinstance(failure, UserError | ModelFileError | OSError):
            return failure
    return error
