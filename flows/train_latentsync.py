"""Train on a dataset: autoencoder, sync network, U-Net stages 1 and 2, evaluation, candidate.

    python -m flows.train_latentsync DATASET --output runs/train --recipe tiny

After an interruption the same command goes on from the last checkpoints, and with more steps it
trains further. With nothing changed it ends at once with the result it had. A changed recipe or
dataset is refused by name: --restart begins again and keeps the earlier work aside.
"""

import time
from functools import partial
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from datasets.store.lock import only_run
from flows.support.artifacts import say, show_table
from flows.support.cli import run
from flows.support.dataset_copy import local_copy
from flows.support.secrets import keep_secrets
from flows.support.train_text import dataset_line, plan_lines, result_lines
from flows.support.training_board import showing
from tasks.evaluate.crew import Crew
from tasks.evaluate.record import make_table, with_judge
from tasks.evaluate.run import evaluate
from tasks.recipes.recipe import parse_overrides
from tasks.recipes.recipe import recipe as make_recipe
from tasks.registry.metric import Evaluation
from tasks.registry.patience import patiently
from tasks.registry.system_metrics import system_metrics
from tasks.registry.tracking import check_uri, default_uri
from tasks.registry.versions import record_evaluation
from tasks.registry.versions import register as register_bundle
from tasks.runtime.device import device_name
from tasks.train import mlflow_runs
from tasks.train.earlier_work import check_on_new_data
from tasks.train.export import check_place, run_metrics, save_bundle
from tasks.train.ray_group import train_with_ray
from tasks.train.room import memory_of
from tasks.train.stages import TrainingJob, check, keep_recipe, prepare_folder, remaining


@task(name="train-stages", cache_policy=NO_CACHE)
@keep_secrets
def train_stages(
    job: TrainingJob, workers: int, min_workers: int, ray_address: str | None
) -> list[str]:
    """Train what remains in Ray Train worker groups; returns the stages' names."""
    todo = remaining(job)
    if todo:
        say(f"training {', '.join(todo)} on {job.device} (recipe {job.recipe.name})")
        if ray_address:
            say(f"joining the Ray cluster at {ray_address}")
        else:
            say("starting Ray and its workers, about half a minute until the first step")
        with showing(job):
            train_with_ray(
                job, workers=workers, min_workers=min_workers, ray_address=ray_address, on_line=say
            )
    else:
        say("training: all stages are already done, and nothing has changed")
    return todo


@task(name="save-bundle", cache_policy=NO_CACHE)
@keep_secrets
def export_bundle(job: TrainingJob) -> Path:
    """Export one folder with everything that inference needs."""
    return save_bundle(job)


@task(name="evaluate", cache_policy=NO_CACHE)
@keep_secrets
def evaluate_bundle(job: TrainingJob, folder: Path, model_name: str) -> tuple[Evaluation, str]:
    """The recipe's short evaluation of the bundle, into `output/evaluation`.

    Returns:
        The evaluation, and the address of the model whose sync network judged it; empty for the
        bundle's own.
    """
    config, judge = with_judge(job.recipe.evaluation, model_name, job.tracking_uri)
    output = job.output / mlflow_runs.EVALUATION_FOLDER
    crew = Crew.of_machine(job.device, config.clips)
    evaluation = evaluate(folder, Path(job.dataset), output, config, job.device, say, crew)
    show_table("train-latentsync-evaluation", make_table(evaluation["metrics"]), f"`{output}`")
    return evaluation, judge


@task(name="register-candidate", cache_policy=NO_CACHE)
@keep_secrets
def register_version(
    job: TrainingJob,
    folder: Path,
    model_name: str,
    run_id: str,
    evaluation: Evaluation,
    judge: str,
) -> int:
    """Register the bundle with its evaluation; returns the version, now called candidate."""
    tags = {"recipe": job.recipe.name}
    version = register_bundle(folder, model_name, job.tracking_uri, run_id, tags)
    record_evaluation(model_name, version, job.tracking_uri, evaluation, judge)
    return version


@flow(name="train-latentsync")
@keep_secrets
def train_latentsync(
    dataset: str,
    output: str = "runs/train",
    recipe: str = "tiny",
    device: str = "auto",
    overrides: list[str] | None = None,
    tracking_uri: str | None = None,
    model_name: str = "latentsync",
    register_candidate: bool = True,
    workers: int = 1,
    min_workers: int = 0,
    ray_address: str | None = None,
    stages: list[str] | None = None,
    restart: bool = False,
    on_new_data: str = "refuse",
    accept_licence: list[str] | None = None,
) -> mlflow_runs.TrainingResult:
    """Train a lip-sync model, evaluate it and register it as candidate.

    Args:
        dataset: folder that refresh-dataset wrote, or its s3:// or gs:// address.
        output: folder for checkpoints, curves, bundle and evaluation.
        recipe: tiny, debug, paper-256, paper-512, stage2-efficient, taesd-256, syncdiff-tiny,
            syncdiff-256, syncdiff-taesd, or a recipe file of your own.
        device: cpu, cuda, cuda:N or mps; auto takes the best that this machine has.
        overrides: changes to the recipe, each like stage1.steps=20.
        tracking_uri: MLflow's store; by default a SQLite file under runs.
        model_name: name in the model registry.
        register_candidate: whether to register the result as candidate.
        workers: processes that train together, each with its own GPU on cuda.
        min_workers: the fewest with which training begins, and goes on when others are lost; by
            default all to begin, and one to go on.
        ray_address: address of a running Ray cluster; by default one is started here.
        stages: train only these: autoencoder, syncnet, stage1, stage2. Without all of them there
            is no bundle and no evaluation.
        restart: begin stages again whose recipe or dataset has changed; their earlier work is kept
            aside.
        on_new_data: refuse, or continue with a dataset that has changed since.
        accept_licence: accept the licence of this name, which binds what is made with a model that
            is trained through its weights: av-hubert.

    Returns:
        run_id, model_version, bundle, metrics and seconds by stage.
    """
    chosen = make_recipe(recipe, parse_overrides(overrides or []))
    uri = check_uri(tracking_uri or default_uri())
    wish = check_on_new_data(on_new_data)
    folder = local_copy(dataset)
    job = TrainingJob(
        folder,
        Path(output).resolve(),
        chosen,
        device_name(device),
        uri,
        stages=tuple(stages or ()),
        accepted=tuple(accept_licence or ()),
    )
    for line in check(job):
        say(line)
    with only_run(job.output):
        if earlier := mlflow_runs.earlier_result(job, model_name, register_candidate):
            say("training: this run is already finished, and nothing has changed")
            result = earlier
        else:
            settled = prepare_folder(job, restart=restart, on_new_data=wish)
            for line in settled.lines:
                say(line)
            options = (model_name, register_candidate, workers, min_workers, ray_address)
            result = _train(job, settled.again, *options)
            mlflow_runs.keep_result(job, model_name, result)
    for line in result_lines(
        job.output, job.output / mlflow_runs.EVALUATION_FOLDER, model_name, result
    ):
        say(line)
    return result


def _train(
    job: TrainingJob,
    again: list[str],
    model_name: str,
    register: bool,
    workers: int,
    min_workers: int,
    ray_address: str | None,
) -> mlflow_runs.TrainingResult:
    """Do everything that remains, under one MLflow run."""
    began = time.monotonic()
    if job.whole:
        check_place(job.output)
    say(dataset_line(Path(job.dataset)))
    memory, notes = memory_of(job, workers, elsewhere=ray_address is not None)
    for line in [*plan_lines(job, workers, memory), *notes]:
        say(line)
    keep_recipe(job)
    tracked = mlflow_runs.start_runs(job, model_name, again)
    job = tracked.job
    version, folder = None, ""
    with mlflow_runs.closing_runs(tracked, say):
        with system_metrics(job.tracking_uri, tracked.run_id):
            train_stages(job, workers, min_workers, ray_address)
        metrics, seconds = run_metrics(job)
        everything: mlflow_runs.RunMetrics = metrics
        if job.whole:
            bundle = export_bundle(job)
            folder = str(bundle)
            before = time.monotonic()
            evaluation, judge = evaluate_bundle(job, bundle, model_name)
            seconds["evaluation"] = time.monotonic() - before
            everything = {**metrics, "evaluation": evaluation["metrics"]}
        patiently(lambda: mlflow_runs.log_results(tracked, everything), "logging the results", say)
        if job.whole and register:
            version = patiently(
                lambda: register_version(
                    job, bundle, model_name, tracked.run_id, evaluation, judge
                ),
                "registering the model",
                say,
            )
    seconds["total"] = time.monotonic() - began
    return {
        "run_id": tracked.run_id,
        "model_version": version,
        "bundle": folder,
        "metrics": everything,
        "seconds": seconds,
    }


main = partial(run, train_latentsync)

if __name__ == "__main__":
    raise SystemExit(main())
