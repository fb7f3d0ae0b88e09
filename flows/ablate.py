"""Answer a question by trainings that differ in one thing each: a study.

    python -m flows.ablate DATASET --study syncnet
    python -m flows.ablate DATASET --study my-study.toml --recipe paper-256 --device cuda

Every arm is trained with several seeds and measured on held-out clips; a page shows the table, the
spread, the curves and what each arm cost. After an interruption the same command goes on where it
stopped.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

from prefect import flow

from datasets.errors import UserError
from datasets.store.lock import only_run
from flows.support.artifacts import say, show_table
from flows.support.cli import run
from flows.support.dataset_copy import local_copy
from flows.support.secrets import keep_secrets
from flows.train_latentsync import train_latentsync
from models.files.errors import ModelFileError
from tasks.registry.tracking import check_uri, default_uri
from tasks.runtime.ray_session import ray_session
from tasks.studies.arms import (
    Training,
    keep_outcome,
    known_outcome,
    outcome_of,
    plan,
    take_over_stages,
)
from tasks.studies.page import PAGE, write_study
from tasks.studies.results import Judged, Outcome, claim_rows, judge, table_rows
from tasks.studies.runs import StudyRun
from tasks.studies.study import Study, read_study


class StudyResult(TypedDict):
    """What the flow returns."""

    rows: list[dict[str, object]]
    """The table: a row for each arm."""
    claims: list[dict[str, object]]
    page: str
    run_id: str


@dataclass(frozen=True)
class _How:
    """How every arm is trained."""

    device: str
    workers: int
    ray_address: str | None
    accepted: list[str]
    """Names of licences."""


@flow(name="ablate")
@keep_secrets
def ablate(
    dataset: str,
    study: str = "syncnet",
    output: str = "runs/study",
    recipe: str = "",
    seeds: int = 0,
    overrides: list[str] | None = None,
    datasets: list[str] | None = None,
    device: str = "auto",
    workers: int = 1,
    ray_address: str | None = None,
    accept_licence: list[str] | None = None,
    tracking_uri: str | None = None,
) -> StudyResult:
    """Train all arms of a study and compare them on held-out clips.

    Args:
        dataset: folder that refresh-dataset wrote, or its s3:// or gs:// address.
        study: syncnet, supervision, shortcut, audio, or a study file of your own, which ends in
            .toml.
        output: folder; the study gets one of its own in it.
        recipe: instead of the study's recipe, a recipe's name or file.
        seeds: trainings of each arm, instead of the study's number.
        overrides: changes to the recipe for all arms, each like syncnet.steps=200.
        datasets: other datasets for arms that name one, each like unaligned=runs/unaligned.
        device: cpu, cuda, cuda:N or mps; auto takes the best that this machine has.
        workers: processes that train together, each with its own GPU on cuda.
        ray_address: address of a running Ray cluster; by default one is started here.
        accept_licence: accept the licence of this name, for arms whose recipe needs it.
        tracking_uri: MLflow's store; by default a SQLite file under runs.

    Returns:
        rows, claims, page and run_id.
    """
    chosen = read_study(study)
    if seeds < 0:
        raise UserError(f"--seeds must be at least 1, got {seeds}")
    uri = check_uri(tracking_uri or default_uri())
    folder = Path(output).resolve() / chosen.name
    others = {name: Path(local_copy(place)) for name, place in _pairs(datasets or []).items()}
    trainings = plan(
        chosen, folder, Path(local_copy(dataset)), others, recipe, overrides or [], seeds
    )
    say(f"study {chosen.name}: {len(trainings)} trainings, {len(chosen.arm)} arms; {folder}")
    how = _How(device, workers, ray_address, list(accept_licence or []))
    with only_run(folder):
        tracked = StudyRun.open(folder, uri, chosen)
        try:
            outcomes = _train_all(chosen, trainings, folder, tracked, how)
        except BaseException:
            tracked.close("KILLED")
            raise
        return _conclude(chosen, outcomes, folder, tracked)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, sign, place = text.partition("=")
        if not sign or not name or not place:
            raise UserError(f"--datasets {text!r} is not of the form unaligned=runs/unaligned")
        pairs[name] = place
    return pairs


def _train_all(
    study: Study,
    trainings: list[Training],
    folder: Path,
    tracked: StudyRun,
    how: _How,
) -> list[Outcome]:
    names = [each.name for each in study.metric]
    outcomes: list[Outcome] = []
    with ExitStack() as ray:
        started = False
        for number, training in enumerate(trainings, 1):
            what = f"{number}/{len(trainings)} {training.arm.name}, seed {training.seed}"
            found = known_outcome(training, names)
            if found is not None:
                say(f"{what}: done already")
            elif obstacle := training.obstacle():
                say(f"{what}: {obstacle}")
                found = Outcome(training.arm.name, training.seed, reason=obstacle)
            else:
                say(f"{what}: {' '.join(training.overrides)}")
                if not started:
                    # One for all trainings: each would wait for its own otherwise.
                    ray.enter_context(ray_session(address=how.ray_address))
                    started = True
                found = _train(study, training, trainings[: number - 1], tracked, how)
                keep_outcome(training, found, names)
            outcomes.append(found)
            write_study(study, outcomes, folder, len(trainings))
    return outcomes


def _train(
    study: Study,
    training: Training,
    before: list[Training],
    tracked: StudyRun,
    how: _How,
) -> Outcome:
    taken = take_over_stages(training, [each for each in before if not each.obstacle()])
    if taken:
        say(f"  trained already by another arm: {', '.join(taken)}")
    try:
        result = train_latentsync(
            dataset=str(training.dataset),
            output=str(training.folder),
            recipe=training.recipe_name,
            device=how.device,
            overrides=training.overrides,
            tracking_uri=tracked.uri,
            model_name=f"study-{study.name}",
            register_candidate=False,
            workers=how.workers,
            ray_address=how.ray_address,
            accept_licence=how.accepted,
            stages=study.stages,
            # The folder is the study's own, and what it held before is kept aside.
            restart=True,
        )
    except (UserError, ModelFileError) as error:
        # One arm that cannot learn is a finding; the others go on.
        return Outcome(training.arm.name, training.seed, reason=str(error))
    tracked.adopt(result["run_id"], training)
    return outcome_of(
        study, training, result["metrics"], result["seconds"], taken, result["run_id"]
    )


def _conclude(
    study: Study, outcomes: list[Outcome], folder: Path, tracked: StudyRun
) -> StudyResult:
    rows = table_rows(study, outcomes)
    judged = judge(study, outcomes)
    tracked.finish(folder, rows)
    show_table("ablate-arms", rows, f"Study {study.name}: {study.about}")
    for row in rows:
        say("  " + "  ".join(f"{name} {value}" for name, value in row.items() if value != ""))
    for line in _claim_lines(judged):
        say(line)
    say(f"page  {folder / PAGE}")
    return {
        "rows": rows,
        "claims": claim_rows(judged),
        "page": str(folder / PAGE),
        "run_id": tracked.run_id,
    }


def _claim_lines(judged: list[Judged]) -> list[str]:
    lines = []
    for each, row in zip(judged, claim_rows(judged), strict=True):
        measured = "never measured"
        if each.seeds:
            measured = f"{row['difference']} better, 95 % interval {row['95 % interval']}"
        lines.append(
            f"  {each.verdict}: {each.claim.text} ({each.claim.metric}, {each.claim.better} "
            f"against {each.claim.than}: {measured}, seeds: {each.seeds})"
        )
    return lines


main = partial(run, ablate)

if __name__ == "__main__":
    raise SystemExit(main())
