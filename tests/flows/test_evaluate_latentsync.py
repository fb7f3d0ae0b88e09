"""The real flow: a small bundle on small clips, and what it leaves behind."""

from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from datasets.errors import UserError
from datasets.media import probe
from flows import evaluate_latentsync as module
from tasks.evaluate.run import read_evaluation
from tasks.registry.metric import metric
from tasks.registry.tracking import RunTracker, default_uri
from tasks.registry.versions import CANDIDATE, EVALUATION_TAG, Registry, register
from tests.support.real_bundle import make_real_bundle
from tests.support.small_dataset import write_small_dataset

OPTIONS: dict[str, Any] = {
    "clips": 2,
    "frames_per_clip": 48,
    "steps": 2,
    "guidance": 1.25,
    "seed": 5,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a bundle that is version 1 of the model `small`, and the store of both."""
    folder = tmp_path_factory.mktemp("place")
    write_small_dataset(folder / "dataset", speakers=4, clips_per_speaker=2)
    make_real_bundle(folder / "bundle")
    uri = default_uri(folder)
    tracker = RunTracker(uri, "small")
    run_id = tracker.start_run("train")
    tracker.end_run()
    register(folder / "bundle", "small", uri, run_id)
    return folder


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The flow's steps as plain functions, and the tables that Prefect would have shown."""
    shown: list[dict[str, Any]] = []
    for name in ("generate_and_measure", "log_results", "compare_models", "judge_whole_frames"):
        monkeypatch.setattr(module, name, getattr(module, name).fn)
    monkeypatch.setattr(module, "create_table_artifact", lambda **table: shown.append(table))
    return shown


def evaluated(place: Path, output: Path, model: str, **options: Any) -> dict[str, Any]:
    return dict(
        module.evaluate_latentsync.fn(
            model=model,
            dataset=str(place / "dataset"),
            output=str(output),
            tracking_uri=default_uri(place),
            **(OPTIONS | options),
        )
    )


def test_a_registered_version_gets_the_numbers_that_were_measured(
    place: Path,
    tables: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = default_uri(place)
    assert Registry(uri).alias("small", CANDIDATE) == 1
    result = evaluated(place, tmp_path, "models:/small@candidate")
    written = read_evaluation(tmp_path)
    assert result["version"] == 1
    assert result["output"] == str(tmp_path)
    assert result["metrics"] == written["metrics"]
    assert result["clips"] == written["clips"]
    assert len(result["clips"]) == 2
    # What was asked for is what was done.
    assert {name: written["config"][name] for name in OPTIONS} == OPTIONS
    assert written["metrics"]["fid"]["n"] == 2 * 48
    for clip in result["clips"]:
        for kind in ("reconstruction", "cross"):
            about = probe(tmp_path / kind / f"{clip}.mp4")
            assert about.duration_s == pytest.approx(48 / 25, abs=0.03)

    version = Registry(uri).version("small", 1)
    kept = version.json_tag(EVALUATION_TAG)
    assert kept is not None
    assert kept["metrics"] == written["metrics"]
    assert kept["protocol_digest"] == written["protocol_digest"]
    assert float(version.tags["metric.ssim"]) == pytest.approx(
        written["metrics"]["ssim"]["value"], rel=1e-5
    )
    run = MlflowClient(uri).get_run(result["run_id"])
    assert run.data.tags["mlflow.parentRunId"] == version.run_id
    assert run.data.metrics["ssim"] == pytest.approx(written["metrics"]["ssim"]["value"])
    assert run.data.params["steps"] == "2"

    table, parts = tables
    assert {row["stratum"] for row in parts["table"]} == {"face_px", "speaker"}
    assert {row["part"] for row in parts["table"]} > {"below 128 px"}
    assert {row["metric"] for row in table["table"]} == set(written["metrics"])
    assert table["description"].startswith("2 test clips")
    printed = capsys.readouterr().out
    assert "evaluated on 2 test clips" in printed
    for name in ("evaluation.json", "plots.png", "contact_sheet.png"):
        assert str(tmp_path / name) in printed
        assert (tmp_path / name).is_file()


def test_a_folder_is_evaluated_without_touching_any_version(
    place: Path, tables: list[dict[str, Any]], tmp_path: Path
) -> None:
    uri = default_uri(place)
    before = Registry(uri).version("small", 1).tags
    few = {"clips": 1, "frames_per_clip": 16, "steps": 1}
    clips = tmp_path / "clips.json"
    result = evaluated(place, tmp_path / "a", str(place / "bundle"), **few)
    assert result["version"] is None
    assert Registry(uri).version("small", 1).tags == before
    assert "mlflow.parentRunId" not in MlflowClient(uri).get_run(result["run_id"]).data.tags
    # The same clips again, though more were allowed.
    clips.write_bytes((tmp_path / "a" / "clips.json").read_bytes())
    again = evaluated(
        place, tmp_path / "b", str(place / "bundle"), **(few | {"clips": 4}), clip_list=str(clips)
    )
    assert again["clips"] == result["clips"]


def test_mistakes_are_told_before_anything_is_generated(
    place: Path, tables: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="there is no small version 7"):
        evaluated(place, tmp_path / "o", "models:/small/7")
    with pytest.raises(UserError, match="there is no model folder"):
        evaluated(place, tmp_path / "o", str(tmp_path / "nowhere"))
    assert not (tmp_path / "o").exists()
    assert not tables


def test_what_to_beware_of_is_printed_last_but_for_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = {
        "metrics": {"fid": metric(12.0, "seeded", 40)},
        "clips": ["a", "b"],
        "split": "train",
        "warnings": ["no speaker is held out"],
    }
    monkeypatch.setattr(module, "resolve_model", lambda *_: tmp_path)
    monkeypatch.setattr(module, "local_copy", Path)
    monkeypatch.setattr(module, "generate_and_measure", lambda *_: content)
    monkeypatch.setattr(module, "log_results", lambda *_: "run")
    module.evaluate_latentsync.fn(
        model=str(tmp_path), output=str(tmp_path), tracking_uri=f"sqlite:///{tmp_path}/m.db"
    )
    lines = capsys.readouterr().out.splitlines()
    assert "2 TRAINING clips" in lines[0]
    assert "12.00     –  40 frames  seeded" in lines[2]
    assert lines[3] == "beware: no speaker is held out"


def test_versions_bundles_and_evaluations_are_compared_on_the_same_clips(
    place: Path,
    tables: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = {"clips": 1, "frames_per_clip": 16, "steps": 1, "silent_clips": 0}
    other = str(make_real_bundle(tmp_path / "other", seed=5))
    models = ["models:/small/1", other]
    result = evaluated(place, tmp_path / "both", "", compare=models, **few)
    page = tmp_path / "both" / "comparison.html"
    assert result["page"] == str(page)
    assert page.read_text().count("data:video/mp4;base64,") == 1
    folders = [tmp_path / "both" / f"model-{number}" for number in (1, 2)]
    first, second = (read_evaluation(folder) for folder in folders)
    # One judge for all, though the second model has its own.
    assert second["config"]["judge_bundle"] == first["config"]["judge_bundle"] != ""
    assert result["metrics"] == first["metrics"]
    assert f"{other} against models:/small/1" in capsys.readouterr().out
    # What is evaluated already is only read.
    again = evaluated(place, tmp_path / "again", "", compare=[str(each) for each in folders], **few)
    assert again["metrics"] == first["metrics"]
    assert not list((tmp_path / "again").glob("model-*"))
    for wrong in ([other], [other, other]):
        with pytest.raises(UserError, match="--compare needs two or more different models"):
            evaluated(place, tmp_path / "o", "", compare=wrong)
    with pytest.raises(UserError, match="--compare and --lse are two commands"):
        evaluated(place, tmp_path / "o", "", compare=models, lse="videos")


def test_lse_needs_syncnet_and_videos(
    place: Path, tables: list[dict[str, Any]], tmp_path: Path
) -> None:
    model = str(place / "bundle")
    with pytest.raises(UserError, match="--pairs needs --lse"):
        evaluated(place, tmp_path / "o", model, pairs="pairs.txt")
    with pytest.raises(UserError, match=r"there is no folder .*: --pairs names clips"):
        evaluated(
            place,
            tmp_path / "o",
            model,
            lse=str(tmp_path / "none"),
            pairs=str(tmp_path / "pairs.txt"),
            syncnet_weights="x",
        )
    with pytest.raises(UserError, match="--lse needs --syncnet-weights"):
        evaluated(place, tmp_path / "o", model, lse=str(tmp_path))
    with pytest.raises(UserError, match="holds no videos"):
        evaluated(place, tmp_path / "o", model, lse=str(tmp_path), syncnet_weights="x")


def test_the_new_options_reach_the_evaluation(
    place: Path, tables: list[dict[str, Any]], tmp_path: Path
) -> None:
    for option, match in (
        ({"protocol": "wav2lip"}, "--protocol must be own or latentsync"),
        ({"windows_at_once": -1}, "--windows-at-once must be 0 or more"),
        ({"identity_weights": "nothing.onnx"}, "there is no file nothing.onnx"),
        ({"workers": 0}, "--workers must be 1 or more"),
    ):
        with pytest.raises(UserError, match=match):
            evaluated(place, tmp_path / "o", str(place / "bundle"), **option)
