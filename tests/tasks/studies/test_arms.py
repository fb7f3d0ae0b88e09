"""The trainings of a study: their order, what is taken over, what it costs."""

import json
from pathlib import Path

import pytest

from datasets.errors import UserError
from tasks.studies.arms import (
    Training,
    keep_outcome,
    known_outcome,
    outcome_of,
    plan,
    take_over_stages,
)
from tasks.studies.results import Number
from tasks.studies.study import Arm, MetricOfStudy, Study
from tasks.train.facts import stage_digests
from tests.support.small_dataset import write_small_dataset

STUDY = Study(
    name="s",
    about="a",
    recipe="debug",
    arm=[
        Arm("as it is"),
        Arm("slow", ["syncnet.lr=0.1"]),
        Arm("no words", ["stage2.losses.sync=0"]),
        Arm("elsewhere", dataset="other"),
    ],
    metric=[MetricOfStudy("syncnet.accuracy", "higher")],
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("d") / "dataset")


def finish(training: Training, *stages: str) -> None:
    """Leave what a training leaves of finished stages."""
    assert training.dataset is not None
    digest = json.loads((training.dataset / "index.json").read_text())["digest"]
    for name in stages:
        folder = training.folder / name
        folder.mkdir(parents=True)
        done = {"digest": stage_digests(training.recipe, digest)[name]}
        (folder / "done.json").write_text(json.dumps(done))
        points = [{"step": 1, "loss": 9.0}, {"step": 2, "heldout_loss": 0.5}]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, points)))


def test_all_arms_of_a_seed_come_before_the_next(dataset: Path, tmp_path: Path) -> None:
    found = plan(STUDY, tmp_path, dataset, {}, seeds=2, overrides=["syncnet.steps=3"])
    assert [(each.arm.name, each.seed) for each in found[:5]] == [
        ("as it is", 1),
        ("slow", 1),
        ("no words", 1),
        ("elsewhere", 1),
        ("as it is", 2),
    ]
    assert len({each.folder for each in found}) == 8
    assert found[5].recipe.seed == 2
    assert found[5].recipe.syncnet.lr == 0.1
    assert found[5].recipe.syncnet.steps == 3
    assert found[3].obstacle() == "the dataset 'other' was not given: --datasets other=FOLDER"
    given = plan(STUDY, tmp_path, dataset, {"other": tmp_path})
    assert given[3].dataset == tmp_path
    assert not given[3].obstacle()
    with pytest.raises(UserError, match=r"arm 'as it is': .*steps"):
        plan(STUDY, tmp_path, dataset, {}, overrides=["syncnet.steps=many"])


def test_only_stages_that_would_be_the_same_are_taken_over(dataset: Path, tmp_path: Path) -> None:
    first, slow, unheard, _ = plan(STUDY, tmp_path, dataset, {}, seeds=1)
    finish(first, "autoencoder", "syncnet", "stage1", "stage2")
    assert take_over_stages(slow, [first]) == ["autoencoder", "stage1"]
    assert take_over_stages(unheard, [first]) == ["autoencoder", "syncnet", "stage1"]
    assert not (unheard.folder / "stage2").exists()
    # After an interruption it is still known what cost nothing.
    assert take_over_stages(unheard, [first, slow]) == ["autoencoder", "syncnet", "stage1"]
    (other,) = plan(STUDY, tmp_path, dataset, {}, seeds=2)[4:5]
    assert take_over_stages(other, [first]) == []


def test_an_outcome_has_numbers_curves_and_costs(dataset: Path, tmp_path: Path) -> None:
    first, slow, *_ = plan(STUDY, tmp_path, dataset, {}, seeds=1)
    finish(first, "autoencoder", "syncnet")
    outcome = outcome_of(
        STUDY,
        first,
        {"syncnet": {"accuracy": 0.75}},
        {"autoencoder": 5.0, "syncnet": 7.0, "evaluation": 2.0, "total": 99.0},
        ["autoencoder"],
        "run",
    )
    assert outcome.numbers == {"syncnet.accuracy": Number(0.75)}
    assert outcome.seconds == 9.0
    assert outcome.curves["syncnet.heldout_loss"] == [(2, 0.5)]
    assert "syncnet.loss" not in outcome.curves

    keep_outcome(first, outcome, ["syncnet.accuracy"])
    assert known_outcome(first, ["syncnet.accuracy"]) == outcome
    # Another question, or another recipe, is not answered by it.
    assert known_outcome(first, ["syncnet.loss"]) is None
    assert known_outcome(slow, ["syncnet.accuracy"]) is None
    (changed, *_) = plan(STUDY, tmp_path, dataset, {}, seeds=1, overrides=["syncnet.steps=9"])
    assert known_outcome(changed, ["syncnet.accuracy"]) is None
