"""A whole run in this process: resumed exactly, skipped when done, redone when changed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.errors import UserError
from models.files.errors import ModelFileError
from tasks.recipes.recipe import recipe
from tasks.runtime.device import resolve_device
from tasks.train.checkpoints import load_state
from tasks.train.curves import METRICS, Curve
from tasks.train.facts import stage_digests, stage_facts, stage_names
from tasks.train.objective import Rank
from tasks.train.reuse import reuse_stages
from tasks.train.stages import (
    PrintReporter,
    TrainingJob,
    check,
    main,
    read_result,
    remaining,
    run_stages,
)
from tests.support.file_server import file_server
from tests.support.talking_boxes import make_dataset

CPU = Rank(torch.device("cpu"))
STAGES = stage_names(recipe("debug"))


class Killed(BaseException):
    """Replaces a signal."""


@contextmanager
def bomb(fuse: int) -> Iterator[None]:
    """Kills the training before a point is written, after some."""
    left = [fuse]
    write = Curve.write

    def counted(curve: Curve, step: int, values: dict[str, float]) -> None:
        if curve.path.name == METRICS:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
        write(curve, step, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Curve, "write", counted)
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "d")


@pytest.fixture(scope="module")
def whole(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A run that was never interrupted."""
    job = TrainingJob(dataset, tmp_path_factory.mktemp("whole"), recipe("debug"))
    run_stages(job, CPU, PrintReporter())
    return job


def curve(job: TrainingJob, stage: str) -> str:
    return (job.output / stage / METRICS).read_text(encoding="utf-8")


def test_every_stage_is_finished_with_its_numbers(whole: TrainingJob) -> None:
    assert remaining(whole) == []
    done = {name: read_result(whole, name) for name in STAGES}
    assert done["autoencoder"] is not None
    assert done["autoencoder"]["metrics"]["psnr_db"] > 20
    assert done["syncnet"] is not None
    assert 0 <= done["syncnet"]["metrics"]["accuracy"] <= 1
    assert done["syncnet"]["metrics"]["heldout_speakers"] == 1
    for name in ("stage1", "stage2"):
        each = done[name]
        assert each is not None
        assert each["metrics"]["loss"] > 0
    names = json.loads(curve(whole, "stage2").splitlines()[-1]).keys()
    assert {"step", "loss", "noise", "sync", "pixel", "lr"} <= set(names)


def test_a_run_killed_in_every_stage_has_the_same_losses(
    whole: TrainingJob, tmp_path: Path
) -> None:
    job = replace(whole, output=tmp_path)
    for _ in STAGES:
        with pytest.raises(Killed), bomb(5):
            # Four points: the second checkpoint and, for the next start, one stage further.
            run_stages(job, CPU, PrintReporter())
    run_stages(job, CPU, PrintReporter())
    for stage in STAGES:
        assert curve(job, stage) == curve(whole, stage), stage
        ours = load_state(job.output / stage / "checkpoint.pt")
        theirs = load_state(whole.output / stage / "checkpoint.pt")
        for name, value in theirs["network"].items():
            assert torch.equal(ours["network"][name], value), (stage, name)


def test_a_streamed_stage_that_is_killed_has_the_same_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(tmp_path / "d", speakers=5, clips=2, frames=52, per_shard=2)
    changes = {"syncnet.reader": "stream", "syncnet.reading_workers": "2"}
    chosen = recipe("debug", changes)
    losses = []
    for name, fuse in (("whole", 100), ("killed", 4)):
        job = TrainingJob(dataset, tmp_path / name, chosen, stages=("syncnet",))
        with suppress(Killed), bomb(fuse):
            run_stages(job, CPU, PrintReporter())
        run_stages(job, CPU, PrintReporter())
    said = capsys.readouterr().out
    assert said.count("syncnet: shards are streamed by 2 processes") == 3
    for name in ("whole", "killed"):
        job = TrainingJob(dataset, tmp_path / name, chosen, stages=("syncnet",))
        lines = (job.output / "syncnet" / METRICS).read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
    reading = json.loads((tmp_path / "killed" / "syncnet" / "reading.json").read_text())
    assert reading == [{"step": 0, "ranks": 1, "workers": 2}]


def test_only_the_way_of_reading_is_part_of_what_is_learned_not_by_how_many() -> None:
    def digest(**changes: str) -> str:
        chosen = recipe("debug", {f"syncnet.{name}": value for name, value in changes.items()})
        return stage_digests(chosen, "d")["syncnet"]

    assert digest() == digest(reading_workers="7")
    assert len({digest(), digest(reader="stream"), digest(mixed_mb="8")}) == 3


def test_a_dataset_is_streamed_from_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(tmp_path / "d", speakers=4, clips=2, frames=52, per_shard=2)
    options = ["--recipe", "debug", "--stages", "syncnet", "--set", "syncnet.reader=stream"]
    options += ["--set", "syncnet.reading_workers=1"]
    with file_server() as server:
        server.content = {
            path.relative_to(dataset).as_posix(): path.read_bytes()
            for path in dataset.rglob("*")
            if path.is_file()
        }
        assert main([server.address, str(tmp_path / "web"), *options]) == 0
    assert main([str(dataset), str(tmp_path / "folder"), *options]) == 0
    web, folder = (tmp_path / name / "syncnet" / METRICS for name in ("web", "folder"))
    assert web.read_text() == folder.read_text()
    assert capsys.readouterr().out.count("shards are streamed by 1 process") == 2


def test_a_finished_run_is_not_touched(whole: TrainingJob) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.output.rglob("*") if path.is_file()}
    with bomb(1):
        run_stages(whole, CPU, PrintReporter())
    after = {path: path.stat().st_mtime_ns for path in whole.output.rglob("*") if path.is_file()}
    assert before == after


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"syncnet.lr": "0.001"}, ["syncnet", "stage2"]),
        ({"autoencoder.steps": "7"}, ["autoencoder", "stage1", "stage2"]),
        ({"stage2.steps": "5"}, ["stage2"]),
        ({"model.unet.ff_mult": "1"}, ["stage1", "stage2"]),
        ({"model.latent_channels": "4"}, ["autoencoder", "stage1", "stage2"]),
        ({"stage1.checkpoint_every": "3", "syncnet.log_every": "2"}, []),
        ({"seed": "8"}, list(STAGES)),
    ],
)
def test_only_what_a_change_touches_is_trained_again(
    whole: TrainingJob, change: dict[str, str], again: list[str]
) -> None:
    assert remaining(replace(whole, recipe=recipe("debug", change))) == again


ON_LATENTS = {"stage2.losses.sync_on": "latents"}


def test_a_loss_on_latents_has_a_sync_network_of_its_own(
    whole: TrainingJob, tmp_path: Path
) -> None:
    job = replace(whole, output=tmp_path / "run", recipe=recipe("debug", ON_LATENTS))
    assert remaining(job) == ["autoencoder", "syncnet", "syncnet_latents", "stage1", "stage2"]
    reuse_stages(whole.output, job.output, ("autoencoder", "syncnet", "stage1"))
    assert remaining(job) == ["syncnet_latents", "stage2"]
    run_stages(job, CPU, PrintReporter())
    curves = [json.loads(curve(each, "stage2").splitlines()[-1]) for each in (whole, job)]
    assert all(point["sync"] > 0 for point in curves)
    assert curves[0]["sync"] != curves[1]["sync"]
    found = read_result(job, "syncnet_latents")
    assert found is not None
    assert found["metrics"]["heldout_speakers"] == 1


def test_choices_that_are_new_do_not_change_what_was_trained_before() -> None:
    facts = stage_facts(recipe("debug"), "d")
    fields = {field for each in facts.values() for field in each}
    assert "stage2.losses.sync" in fields
    assert not [field for field in fields if "sync_on" in field or "sees" in field]
    others = stage_facts(recipe("debug", ON_LATENTS), "d")
    assert [name for name in facts if facts[name] != others[name]] == ["stage2"]
    assert others["stage2"]["stage2.losses.sync_on"] == "latents"
    assert others["syncnet_latents"]["syncnet_latents.sees"] == "latents"
    assert "upstream.syncnet_latents" in others["stage2"]


def test_another_dataset_is_another_training(dataset: Path) -> None:
    chosen = recipe("debug")
    first, second = stage_digests(chosen, "a"), stage_digests(chosen, "b")
    assert all(first[name] != second[name] for name in STAGES)
    assert list(stage_digests(recipe("paper-256"), "a")) == ["syncnet", "stage1", "stage2"]


def test_devices_that_are_not_there_end_in_a_sentence() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "gpu", "tpu", "meta", ""):
        with pytest.raises(UserError, match=name or "is not a device"):
            resolve_device(name)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("paper-256", "sd-vae-ft-mse"),
        ("paper-512", "sd-vae-ft-mse"),
        ("stage2-efficient", "latentsync-1.5-syncnet"),
    ],
)
def test_missing_weights_are_named_before_anything_starts(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, missing: str
) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "weights"))
    with pytest.raises(UserError, match=rf"{missing} .*`make weights`"):
        check(TrainingJob(dataset, tmp_path, recipe(name)))


def test_a_stage_alone_needs_only_its_own_files(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "weights"))
    job = TrainingJob(dataset, tmp_path, recipe("paper-256"), stages=("syncnet",))
    check(job)
    assert (job.wanted, job.whole) == (["syncnet"], False)
    with pytest.raises(UserError, match=r"has no stage 'stage3': choose from syncnet, stage1"):
        check(replace(job, stages=("stage3",)))


def test_a_file_that_is_no_video_network_is_found_before_anything_starts(
    dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "vit.pth"
    torch.save({"model": {"head.weight": torch.zeros(1)}}, path)
    for weights, match in ((str(path), r"vit\.pth does not fit VideoMAE"), ("", "trepa_weights")):
        chosen = recipe("debug")
        losses = replace(chosen.unet("stage2").losses, trepa=10.0)
        stage2 = replace(chosen.unet("stage2"), losses=losses, trepa_weights=weights)
        with pytest.raises((ModelFileError, UserError), match=match):
            check(TrainingJob(dataset, tmp_path, replace(chosen, stage2=stage2)))


def test_a_missing_dataset_ends_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no dataset"):
        check(TrainingJob(tmp_path / "none", tmp_path, recipe("debug")))


@pytest.mark.parametrize(
    ("crop", "match"),
    [
        (None, "former, larger crop.*refresh it"),
        ("wider", "aligned as 'wider', but the model is for 'latentsync-1.5'"),
    ],
)
def test_faces_that_are_aligned_otherwise_are_refused(
    dataset: Path, tmp_path: Path, crop: str | None, match: str
) -> None:
    index = json.loads((dataset / "index.json").read_text())
    del index["crop"]
    (tmp_path / "index.json").write_text(json.dumps(index | ({"crop": crop} if crop else {})))
    with pytest.raises(UserError, match=match):
        check(TrainingJob(tmp_path, tmp_path / "run", recipe("debug")))


def test_which_reference_is_shown_later_trains_nothing_again() -> None:
    chosen = recipe("debug")
    other = replace(chosen, model=replace(chosen.model, reference="frame"))
    assert chosen.model.reference == "still"
    assert stage_digests(chosen, "a") == stage_digests(other, "a")


def test_the_command_line_trains_one_stage(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--recipe", "debug", "--stages", "autoencoder", "--set", "autoencoder.steps=2"]
    assert main([str(dataset), str(tmp_path), *options]) == 0
    printed = capsys.readouterr().out
    assert "dB PSNR on clips of 1 held-out speakers" in printed
    assert not (tmp_path / "syncnet").exists()
