"""A training run inside one Ray Train worker group.

One `TorchTrainer` runs all stages that remain, since starting workers and importing torch
costs as much as a short stage. Checkpoints and resume are the stages' own, so the group
that follows one that lost a worker goes on where the last checkpoint is. Rank 0 writes curves
and progress to files; the caller's process prints the one and sends the others to MLflow.

A group may be smaller than asked for: its workers then compute the shares of the others, too, and
a step stays the same. When there is room for more, the group ends at a checkpoint that is written
for this, and a larger one goes on.
"""

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from datasets.errors import UserError
from models.files.errors import ModelFileError
from tasks.runtime.ray_session import ray_session
from tasks.runtime.worker_room import WorkerRoom
from tasks.train.beats import beating
from tasks.train.delivery import delivering
from tasks.train.groups import PAUSE, Groups
from tasks.train.objective import Paused, Rank
from tasks.train.stages import TrainingJob, run_stages

PROGRESS = "progress.log"
RAY_FOLDER = ".ray"
"""What Ray Train writes about a group; useless once the group has ended."""
NOTICES = {"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "60"}
"""Ray Train waits ten minutes for the word of a worker whose node it does not believe dead yet."""
POLL_SECONDS = 0.3


class FileReporter:
    """Rank 0's side of the reporting: lines into a file, which the caller's process prints."""

    def __init__(self, job: TrainingJob) -> None:
        self.path = job.output / PROGRESS

    def progress(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _train_function(config: Mapping[str, Any]) -> None:
    """Train what remains; runs in every worker."""
    from ray import train
    from ray.train.torch import get_device

    job: TrainingJob = config["job"]
    context = train.get_context()
    asked = torch.device(job.device)
    device = get_device() if asked.type == "cuda" and asked.index is None else asked
    rank, count = context.get_world_rank(), context.get_world_size()
    worker = Rank(device, rank, count, config["shares"])
    folder, reporter = job.output / RAY_FOLDER, FileReporter(job)
    if worker.leads and count < worker.all_shares:
        reporter.progress(
            f"{count} of {worker.all_shares} training workers: they compute the shares of the "
            "others, too, so steps take longer and stay the same"
        )
    with beating(folder, rank, socket.gethostname()), suppress(Paused):
        run_stages(job, worker, reporter, (folder / PAUSE).exists)


def train_with_ray(
    job: TrainingJob,
    *,
    workers: int = 1,
    min_workers: int = 0,
    ray_address: str | None = None,
    on_line: Callable[[str], None] = print,
) -> None:
    """Train what remains of a job on a local Ray or a cluster.

    Args:
        job: what to train; its paths must be the same on all machines of a cluster.
        workers: processes that train together, one GPU each on CUDA.
        min_workers: the fewest with which training begins, and goes on when others are lost; 0: all
            to begin, and one to go on.
        ray_address: of a running cluster; None starts a local one for this call.
        on_line: called with each line of progress.

    Raises:
        UserError: there is no room for the workers, or they were lost too often.
        UserError, ModelFileError, OSError: what a worker found, unwrapped.
        ray.train.TrainingFailedError: anything else that went wrong in a worker.
    """
    if not 0 <= min_workers <= workers:
        raise UserError(f"min_workers must be between 0 and workers ({workers}), got {min_workers}")
    dataset = job.dataset.resolve() if isinstance(job.dataset, Path) else job.dataset
    job = replace(job, dataset=dataset, output=job.output.resolve())
    job.output.mkdir(parents=True, exist_ok=True)
    progress = job.output / PROGRESS
    progress.write_text("", encoding="utf-8")
    uses_gpu = torch.device(job.device).type == "cuda"
    with delivering(job, on_line), ray_session(address=ray_address):
        room = WorkerRoom.of_cluster(workers, uses_gpu)
        if room.workers() < (min_workers or workers):
            kind = "GPU" if uses_gpu else "CPU"
            raise UserError(
                f"{min_workers or workers} training workers need {min_workers or workers} {kind}s, "
                f"but Ray has {room.total(kind):g}: use fewer workers or a larger cluster"
            )
        groups = Groups(
            job,
            room,
            max(1, min_workers),
            job.output / RAY_FOLDER,
            lambda count: _trainer(job, count, room).fit(),
            _lost,
            on_line,
        )
        _fit_in_background(job, groups, progress, on_line)


def _fit_in_background(
    job: TrainingJob, groups: Groups, progress: Path, on_line: Callable[[str], None]
) -> None:
    """Wait for the groups while passing on their lines.

    They run in a thread of its own, because in the main thread a trainer would take
    over Ctrl-C and end the process as if it had succeeded.
    """
    failures: list[BaseException] = []
    (job.output / RAY_FOLDER).mkdir(exist_ok=True)

    def fit() -> None:
        try:
            groups.fit()
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
        groups.watch()
        thread.join(POLL_SECONDS)
    shutil.rmtree(job.output / RAY_FOLDER, ignore_errors=True)
    if failures:
        raise _cause(failures[0]) from failures[0]


def _trainer(job: TrainingJob, workers: int, room: WorkerRoom) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    for name, value in NOTICES.items():
        os.environ.setdefault(name, value)
    return TorchTrainer(
        _train_function,
        train_loop_config={"job": job, "shares": room.wanted},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=room.gpus, resources_per_worker=dict(room.needs)
        ),
        run_config=RunConfig(
            # Under a known name Ray would look for a state of its own to resume from.
            name=f"run-{time.time_ns()}",
            storage_path=str(job.output / RAY_FOLDER),
            # Errors of training itself are not worth a second try, see `Groups`.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )


def _lost(error: BaseException) -> str:
    """Which workers' processes died, as opposed to the train function raising an error, or that
    they could not be started.

    The other workers then raise connection errors, so one such failure decides.
    """
    failures = getattr(error, "worker_failures", {}) or {}
    ranks = [rank for rank, each in failures.items() if type(each).__module__.startswith("ray.")]
    if ranks:
        many = f"training worker{'s' * (len(ranks) > 1)}"
        return f"{many} {', '.join(str(rank) for rank in sorted(ranks))} of the group was lost"
    cause = getattr(error, "controller_failure", None)
    if type(cause).__name__.startswith("WorkerGroupStartup"):
        return "Ray could not start the training workers"
    return ""


def _cause(error: BaseException) -> BaseException:
    """The error that a worker raised for the user, unwrapped from Ray's."""

    for failure in (getattr(error, "worker_failures", None) or {}).values():
        if isinstance(failure, UserError | ModelFileError | OSError):
            return failure
    return error
