import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from datasets.faces.alignment import CROP
from datasets.media import probe
from models.files.errors import ModelFileError
from models.latentsync.config import MASK
from models.syncnet.syncnet_v2 import SyncNet
from tasks.evaluate.clips import ChosenClip, ClipList
from tasks.evaluate.plots import COLUMNS
from tasks.evaluate.run import (
    SHEET_CLIPS,
    _protocol,
    _write_pictures,
    evaluate,
    generate,
    read_evaluation,
)
from tasks.recipes.evaluation import EvaluationConfig
from tests.support.fake_generator import Brightener
from tests.support.real_bundle import make_real_bundle
from tests.support.small_dataset import landmarks, write_small_dataset
from tests.support.small_models import small_stable, write_converted

CONFIG = EvaluationConfig(clips=2, frames_per_clip=40, steps=1)
SHORT = EvaluationConfig(clips=1, frames_per_clip=16, steps=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("data"), speakers=4, clips_per_speaker=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_real_bundle(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def output(dataset: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate(bundle, dataset, folder, CONFIG)
    return folder


def test_every_number_has_a_label_and_a_count(output: Path) -> None:
    metrics = read_evaluation(output)["metrics"]
    assert {"lpips", "sync_accuracy", "sync_accuracy_real"} <= set(metrics)
    assert {"in_sync_share", "in_sync_share_real"} <= set(metrics)
    for name, of in (("lmd", "same speech, reconstruction"), ("lmd_cross", "cross audio")):
        assert "not the published LMD" in metrics[name]["label"]
        assert of in metrics[name]["label"]
    assert "biased upwards by only 80 samples for 112 features" in metrics["fid"]["label"]
    assert "not LPIPS weights" in metrics["lpips"]["label"]
    assert metrics["lpips"]["value"] > 0
    assert {"fid", "fvd", "ssim", "sync_c", "sync_d", "mouth_offset", "lmd"} <= set(metrics)
    for name, entry in metrics.items():
        assert set(entry) - {"reason"} == {"value", "label", "n"}
        assert entry["label"], name
    assert "not the official weights" in metrics["fid"]["label"]
    assert "FrameSyncNet (not syncnet_v2)" in metrics["sync_c"]["label"]
    assert 0 < metrics["ssim_mouth"]["value"] < metrics["ssim"]["value"] < 1
    assert metrics["fid"]["n"] == 80
    assert metrics["fvd"]["n"] == 4


def test_videos_lists_and_pictures_are_written(output: Path) -> None:
    listed = json.loads((output / "clips.json").read_text())
    assert listed["split"] == "test"
    names = [clip["clip_id"] for clip in listed["clips"]]
    assert len(names) == 2
    for kind in ("reconstruction", "cross"):
        for name in names:
            about = probe(output / kind / f"{name}.mp4")
            assert (about.width, about.height, about.fps) == (64, 64, 25)
            assert about.has_audio
    assert (output / "contact_sheet.png").stat().st_size > 1000
    assert (output / "plots.png").stat().st_size > 1000
    assert not (output / ".generated").exists()


def test_pictures_hold_no_more_than_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = np.zeros((20, 16, 16, 3), np.uint8)

    class Store:
        def frames(self, clip_id: str) -> np.ndarray:
            return video

        def audio(self, clip_id: str) -> np.ndarray:
            return np.zeros(20 * 640, np.float32)

    clips = [ChosenClip(f"clip{number}", "s", 20, f"clip{number}", 20) for number in range(8)]
    for number in range(len(clips)):
        for kind in ("reconstruction", "cross"):
            np.save(tmp_path / f"{number:03d}-{kind}.npy", video)
    shown: list[tuple[str, str, np.ndarray]] = []
    monkeypatch.setattr("tasks.evaluate.run.contact_sheet", lambda path, rows: shown.extend(rows))
    monkeypatch.setattr("tasks.evaluate.run.evaluation_page", lambda *_: None)
    _write_pictures(tmp_path, Store(), ClipList(tuple(clips), "test", ""), tmp_path, {}, [])
    assert [row[:2] for row in shown[:3]] == [
        ("clip0", "input"),
        ("clip0", "reconstruction"),
        ("clip0", "cross"),
    ]
    assert len(shown) == 3 * SHEET_CLIPS
    assert all(frames.base is None and len(frames) == COLUMNS for _, _, frames in shown)


def test_the_same_again_is_read_back(output: Path, dataset: Path, bundle: Path) -> None:
    before = (output / "evaluation.json").stat().st_mtime_ns
    lines: list[str] = []
    again = evaluate(bundle, dataset, output, CONFIG, progress=lines.append)
    assert again == read_evaluation(output)["metrics"]
    assert (output / "evaluation.json").stat().st_mtime_ns == before
    assert "nothing has changed" in lines[0]


def test_what_was_generated_before_an_interruption_is_kept(
    dataset: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tasks.evaluate.run._measure_all", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(bundle, dataset, tmp_path, SHORT)
    assert len(list((tmp_path / ".generated").rglob("*.npy"))) == 2
    lines: list[str] = []
    evaluate(bundle, dataset, tmp_path, SHORT, progress=lines.append)
    assert "own speech shifted by half" in lines[0]
    assert lines[1:] == ["evaluation: measured 1/1 clips"]


def test_another_model_is_compared_by_the_same_protocol(
    dataset: Path, bundle: Path, tmp_path: Path
) -> None:
    other = make_real_bundle(tmp_path / "other", seed=5)
    for name, model, config in (
        ("first", bundle, SHORT),
        ("same", other, SHORT),
        ("steps", other, replace(SHORT, steps=2)),
    ):
        evaluate(model, dataset, tmp_path / name, config)
    first, same, steps = (read_evaluation(tmp_path / name) for name in ("first", "same", "steps"))
    assert same["protocol_digest"] == first["protocol_digest"]
    assert same["model_digest"] != first["model_digest"]
    assert steps["protocol_digest"] != first["protocol_digest"]
    # Too short for a search over shifts: no number instead of a wrong one, and the reason.
    for name, entry in first["metrics"].items():
        assert ("reason" in entry) == (entry["value"] is None), name
    metrics = first["metrics"]
    assert metrics["sync_c"]["value"] is None
    for name, needed in (("sync_c", 31), ("in_sync_share", 31), ("mouth_z", 46)):
        reason = metrics[name]["reason"]
        assert reason.startswith("clips of 16 frames are too short"), name
        assert reason.endswith(f"needs {needed} frames or more"), name
    assert metrics["fvd"]["reason"].startswith("it needs 2 windows of 16 frames or more")
    for name in ("sync_c", "fid", "fvd"):
        label = metrics[name]["label"]
        assert "own speech shifted by half, since there is only one test clip" in label


def test_training_clips_are_called_so_on_every_line(bundle: Path, tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "data", speakers=1, clips_per_speaker=2)
    lines: list[str] = []
    evaluate(bundle, dataset, tmp_path / "out", replace(SHORT, clips=2), progress=lines.append)
    assert len(lines) == 1 + 4 + 2
    assert all(line.startswith("evaluation on TRAINING clips: ") for line in lines)
    content = read_evaluation(tmp_path / "out")
    assert content["split"] == "train"
    assert "no test split" in content["warnings"][0]
    assert "TRAINING" in content["metrics"]["ssim"]["label"]


def test_the_published_syncnet_judges_and_another_says_what_is_in_sync(
    dataset: Path, bundle: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.save(SyncNet().state_dict(), tmp_path / "syncnet_v2.model")
    config = replace(CONFIG, clips=1, syncnet_weights=str(tmp_path / "syncnet_v2.model"))
    metrics = evaluate(bundle, dataset, tmp_path / "out", config)
    assert metrics["sync_c"]["label"].startswith("syncnet_v2 on aligned crops")
    assert metrics["sync_c"]["value"] is not None
    for name in ("sync_accuracy", "in_sync_share"):
        assert "FrameSyncNet" in metrics[name]["label"]
        assert metrics[name]["value"] is not None
    stable = replace(
        CONFIG, clips=1, stable_syncnet_weights=str(write_converted(tmp_path / "s", small_stable()))
    )
    metrics = evaluate(bundle, dataset, tmp_path / "out", stable)
    for name in ("sync_accuracy", "sync_accuracy_real", "in_sync_share"):
        assert metrics[name]["label"].startswith("StableSyncNet of model.safetensors")
        assert 0 <= (metrics[name]["value"] or 0) <= 1
    plain = replace(stable, stable_syncnet_weights="")
    assert _protocol(stable, "tests", bundle) != _protocol(plain, "tests", bundle)


@pytest.mark.parametrize("reference", ["frame", "still", "away"])
def test_frames_are_generated_with_the_reference_of_lip_sync(reference: str) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class Watcher(Brightener):
        def window(self, faces, references, tokens):  # type: ignore[no-untyped-def]
            seen.append((faces[:, 0, 0, 0].astype(int), references[:, 0, 0, 0].astype(int)))
            return super().window(faces, references, tokens)

    frames = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    opening = np.full(60, 0.5)
    opening[7] = 0.0
    generate(Watcher(1, reference), frames, np.zeros(60 * 640, np.float32), landmarks(opening, 64))
    targets, references = (np.stack(each) for each in zip(*seen, strict=True))
    if reference == "frame":
        assert (targets == references).all()
    elif reference == "still":
        assert set(references.ravel()) == {7}
    else:
        assert (np.abs(targets - references) >= 16).all()


def test_the_reference_is_the_models_own_or_what_was_asked_for(
    output: Path, dataset: Path, bundle: Path, tmp_path: Path
) -> None:
    content = read_evaluation(output)
    assert (content["mask"], content["crop"]) == (MASK, CROP)
    assert content["reference"] == "still"
    asked = replace(SHORT, reference="frame")
    evaluate(bundle, dataset, tmp_path / "out", asked)
    assert read_evaluation(tmp_path / "out")["reference"] == "frame"
    # Numbers of another reference do not compare, whoever chose it.
    framed = shutil.copytree(bundle, tmp_path / "framed")
    for name in ("bundle.json", "config.json"):
        about = json.loads((framed / name).read_text())
        (framed / name).write_text(json.dumps(about | {"reference": "frame"}))
    for name, model, config in (
        ("own", framed, SHORT),
        ("still", bundle, SHORT),
        ("still asked", framed, replace(SHORT, reference="still")),
    ):
        judged = replace(config, judge_bundle=str(bundle))
        evaluate(model, dataset, tmp_path / name, judged)
    digests = {
        name: read_evaluation(tmp_path / name)["protocol_digest"]
        for name in ("out", "own", "still", "still asked")
    }
    assert digests["out"] == digests["own"] != digests["still"] == digests["still asked"]
    with pytest.raises(UserError, match="--reference must be frame, still, away, got 'own'"):
        evaluate(bundle, dataset, tmp_path / "none", replace(SHORT, reference="own"))


def test_a_dataset_of_another_crop_is_refused(dataset: Path, bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "data"
    shutil.copytree(dataset, other)
    index = json.loads((other / "index.json").read_text())
    for changed, match in (
        ({"crop": "wider"}, "aligned as 'wider', the model is for 'latentsync-1.5'"),
        ({}, "larger crop of before"),
    ):
        kept = {name: value for name, value in index.items() if name != "crop"}
        (other / "index.json").write_text(json.dumps(kept | changed))
        with pytest.raises(UserError, match=match):
            evaluate(bundle, other, tmp_path / "out", SHORT)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("option", ["inception_weights", "i3d_weights", "lpips_weights"])
def test_a_wrong_network_is_refused_before_anything_is_generated(
    option: str, dataset: Path, bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.pt"
    torch.jit.script(torch.nn.ReLU()).save(str(path))
    given: dict[str, Any] = {option: str(path)}
    with pytest.raises(ModelFileError, match=r"wrong\.pt is TorchScript but not"):
        evaluate(bundle, dataset, tmp_path / "out", replace(SHORT, **given))
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_mistakes_are_one_sentence(dataset: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        evaluate(bundle, dataset, tmp_path, CONFIG, device="cuda:99")
    with pytest.raises(UserError, match="there is no file nothing"):
        evaluate(bundle, dataset, tmp_path, replace(CONFIG, i3d_weights="nothing.pt"))
    with pytest.raises(UserError, match="is no list of clips"):
        evaluate(bundle, dataset, tmp_path, replace(CONFIG, clip_list=str(tmp_path)))
    with pytest.raises(ModelFileError, match="is no model bundle"):
        evaluate(tmp_path, dataset, tmp_path, CONFIG)
    with pytest.raises(UserError, match="holds no evaluation"):
        read_evaluation(tmp_path / "nothing")
