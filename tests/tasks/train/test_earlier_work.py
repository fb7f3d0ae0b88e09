"""What earlier runs left: gone on from, refused by name, or kept aside; never overwritten."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.errors import UserError
from tasks.recipes.recipe import recipe
from tasks.train.checkpoints import load_state
from tasks.train.curves import METRICS
from tasks.train.earlier_work import RECORD, check_on_new_data
from tasks.train.facts import CODE_VERSION, stage_names
from tasks.train.objective import Rank
from tasks.train.stages import (
    PrintReporter,
    TrainingJob,
    prepare_folder,
    read_result,
    remaining,
    run_stages,
)
from tests.support.talking_boxes import make_dataset

CPU = Rank(torch.device("cpu"))
STAGES = stage_names(recipe("debug"))
QUICK = {f"{stage}.steps": "2" for stage in STAGES} | {
    "syncnet.test_every": "0",
    "syncnet.test_windows": "4",
}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    first, second = make_dataset(folder / "first"), make_dataset(folder / "second", speakers=4)
    return first, second


@pytest.fixture(scope="module")
def trained(datasets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    job = TrainingJob(datasets[0], tmp_path_factory.mktemp("run") / "out", recipe("debug", QUICK))
    prepare_folder(job)
    run_stages(job, CPU, PrintReporter())
    return job


@pytest.fixture
def job(trained: TrainingJob, tmp_path: Path) -> TrainingJob:
    """A finished run of its own."""
    shutil.copytree(trained.output, tmp_path / "out")
    return replace(trained, output=tmp_path / "out")


def changed(job: TrainingJob, **overrides: str) -> TrainingJob:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return replace(job, recipe=recipe("debug", QUICK | named))


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_nothing_changed_is_done(job: TrainingJob) -> None:
    before = tree(job.output)
    settled = prepare_folder(job)
    assert (settled.lines, settled.again) == ([], [])
    assert tree(job.output) == before
    assert remaining(job) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"syncnet__lr": "0.001"}, r"syncnet: syncnet\.lr was 0\.002 and is 0\.001"),
        ({"syncnet__steps": "1"}, r"syncnet: syncnet\.steps was 2 and is 1"),
        ({"model__unet__ff_mult": "1"}, r"stage1: model\.unet\.ff_mult was 2 and is 1"),
        ({"seed": "8"}, r"autoencoder: seed was 1247 and is 8\. syncnet: seed was"),
        ({"stage2__losses__sync": "0.5"}, r"stage2\.losses\.sync was 0\.05 and is 0\.5"),
    ],
)
def test_a_changed_recipe_is_refused_by_name(
    job: TrainingJob, change: dict[str, str], said: str
) -> None:
    before = tree(job.output)
    with pytest.raises(UserError, match=said) as caught:
        prepare_folder(changed(job, **change))
    assert "--restart" in str(caught.value)
    assert tree(job.output) == before


def test_on_request_changed_stages_begin_again_and_the_old_ones_are_kept(
    job: TrainingJob,
) -> None:
    before = tree(job.output)
    other = changed(job, stage1__lr="0.001")
    settled = prepare_folder(other, restart=True)
    assert settled.again == ["stage1", "stage2"]
    assert "stage1 has changed and is trained again" in settled.lines[0]
    assert "stage2 builds on a stage that will change" in settled.lines[1]
    assert remaining(other) == ["stage1", "stage2"]
    kept = {
        name.replace(".before-1/", "/"): value
        for name, value in tree(job.output).items()
        if not name.startswith(("stage1/", "stage2/"))
    }
    assert kept == before
    run_stages(other, CPU, PrintReporter())
    # The same again is done, not begun a third time.
    assert prepare_folder(other, restart=True).again == []
    assert remaining(other) == []
    prepare_folder(job, restart=True)
    assert (job.output / "stage1.before-2").is_dir()


def test_more_steps_go_on_and_what_was_built_on_them_begins_again(job: TrainingJob) -> None:
    longer = changed(job, syncnet__steps="4")
    settled = prepare_folder(longer)
    assert settled.again == ["stage2"]
    assert settled.lines[0] == "syncnet goes on: syncnet.steps was 2 and is 4"
    assert (job.output / "stage2.before-1" / "checkpoint.pt").is_file()
    run_stages(longer, CPU, PrintReporter())
    assert remaining(longer) == []
    at_once = replace(longer, output=job.output.parent / "at once")
    prepare_folder(at_once)
    run_stages(at_once, CPU, PrintReporter())
    for stage in STAGES:
        ours, theirs = (
            load_state(each.output / stage / "checkpoint.pt") for each in (longer, at_once)
        )
        assert ours["step"] == theirs["step"]
        for name, value in theirs["network"].items():
            assert torch.equal(ours["network"][name], value), (stage, name)
        curves = [(each.output / stage / METRICS).read_text() for each in (longer, at_once)]
        assert curves[0] == curves[1]


def test_a_stage_whose_rate_falls_along_a_cosine_says_that_it_differs(job: TrainingJob) -> None:
    (line, *_) = prepare_folder(changed(job, stage1__steps="3")).lines
    assert "follows one over 3 from here, so the result is not that of 3 steps" in line


def test_a_kill_after_raising_the_steps_costs_nothing(job: TrainingJob) -> None:
    """The checkpoint still carries the digest of before when the record has the new one."""
    longer = changed(job, syncnet__steps="4")
    prepare_folder(longer)
    settled = prepare_folder(longer)
    assert settled.again == []
    run_stages(longer, CPU, PrintReporter())
    assert load_state(job.output / "syncnet" / "checkpoint.pt")["step"] == 4
    assert len((job.output / "syncnet" / METRICS).read_text().splitlines()) == 4


def test_a_newer_dataset_is_refused_or_taken_over(
    job: TrainingJob, datasets: tuple[Path, Path]
) -> None:
    newer = replace(job, dataset=datasets[1])
    before = tree(job.output)
    with pytest.raises(UserError, match=r"dataset was '.{12}' and is '.{12}'") as caught:
        prepare_folder(newer)
    assert "--on-new-data continue" in str(caught.value)
    assert tree(job.output) == before
    settled = prepare_folder(newer, on_new_data="continue")
    assert settled.again == []
    assert remaining(newer) == []
    assert "syncnet was trained on the dataset" in settled.lines[1]
    assert "keeps its result: raise its steps" in settled.lines[1]
    results = [read_result(newer, name) for name in STAGES]
    assert all(results)
    # And with more steps it trains on with the new data, from where it was.
    further = changed(newer, syncnet__steps="5")
    settled = prepare_folder(further, on_new_data="continue")
    assert settled.again == ["stage2"]
    run_stages(further, CPU, PrintReporter())
    assert load_state(job.output / "syncnet" / "checkpoint.pt")["step"] == 5


def test_unfinished_work_goes_on_with_new_data_and_nothing_is_built_on_the_old(
    job: TrainingJob, datasets: tuple[Path, Path]
) -> None:
    longer = changed(job, syncnet__steps="4")
    prepare_folder(longer)
    newer = replace(longer, dataset=datasets[1])
    settled = prepare_folder(newer, on_new_data="continue")
    assert settled.again == []
    assert any("syncnet was trained" in line and "goes on with" in line for line in settled.lines)
    assert remaining(newer) == ["syncnet", "stage2"]


def test_work_of_an_earlier_version_of_the_program_is_refused(job: TrainingJob) -> None:
    done = job.output / "syncnet" / "done.json"
    done.write_text(json.dumps(json.loads(done.read_text()) | {"digest": "before"}))
    (job.output / "syncnet" / RECORD).unlink()
    with pytest.raises(UserError, match="syncnet: it was trained by an earlier version"):
        prepare_folder(job)
    record = json.loads((job.output / "stage1" / RECORD).read_text())
    record["facts"]["code"] = 2
    done = job.output / "stage1" / "done.json"
    done.write_text(json.dumps(json.loads(done.read_text()) | {"digest": "before"}))
    (job.output / "stage1" / RECORD).write_text(json.dumps(record | {"digest": "before"}))
    with pytest.raises(
        UserError, match=rf"by version 2 of the training code, which is {CODE_VERSION} now"
    ):
        prepare_folder(job)


def test_saving_more_often_or_in_parts_changes_nothing(job: TrainingJob) -> None:
    other = changed(job, stage1__micro_batch="1", syncnet__keep_last="3", stage2__patience="5")
    assert prepare_folder(other).lines == []
    assert remaining(other) == []


def test_one_stage_alone_leaves_the_others_alone(job: TrainingJob) -> None:
    alone = replace(changed(job, syncnet__lr="0.001"), stages=("autoencoder",))
    assert prepare_folder(alone).lines == []
    assert remaining(alone) == []
    with pytest.raises(UserError, match=r"syncnet\.lr"):
        prepare_folder(replace(alone, stages=("syncnet",)))


def test_what_happens_with_new_data_must_be_one_of_two_words() -> None:
    assert check_on_new_data("continue") == "continue"
    with pytest.raises(UserError, match="must be one of refuse, continue, got 'yes'"):
        check_on_new_data("yes")
