import json
import shutil
from collections.abc import Callable
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
from tasks.evaluate.baselines import BASELINES
from tasks.evaluate.clip_stage import (
    SHEET_CLIPS,
    ClipJob,
    process_clips,
    record_path,
)
from tasks.evaluate.clips import ChosenClip, ClipList, OpenClip, open_clip
from tasks.evaluate.generated import GeneratedFrames, generate
from tasks.evaluate.measurement import ClipRecord, Labels, Measurement, read_record
from tasks.evaluate.plots import COLUMNS
from tasks.evaluate.protocol import protocol_digest
from tasks.evaluate.run import evaluate, read_evaluation
from tasks.recipes.evaluation import EvaluationConfig
from tasks.registry.metric import Metric
from tests.support.counting_store import SIDE, CountingStore
from tests.support.fake_generator import Brightener
from tests.support.real_bundle import make_real_bundle
from tests.support.small_dataset import landmarks, write_small_dataset
from tests.support.small_models import small_stable, write_converted

CONFIG = EvaluationConfig(clips=2, frames_per_clip=40, steps=1)
SHORT = EvaluationConfig(clips=1, frames_per_clip=16, steps=1)

SETS = ("fid", "fvd", "cd_fvd", "motion_mmd")


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


def value(metrics: dict[str, Metric], name: str) -> float:
    found = metrics[name]["value"]
    assert found is not None
    return found


def test_every_number_has_a_label_and_a_count(output: Path) -> None:
    metrics = read_evaluation(output)["metrics"]
    assert {"lpips", "sync_accuracy", "sync_accuracy_real"} <= set(metrics)
    assert {"in_sync_share", "in_sync_share_real"} <= set(metrics)
    for name, of in (("lmd", "same speech, reconstruction"), ("lmd_cross", "cross audio")):
        assert "not the published LMD" in metrics[name]["label"]
        assert of in metrics[name]["label"]
    assert "biased upwards by only 80 samples for 112 features" in metrics["fid"]["label"]
    assert "not LPIPS weights" in metrics["lpips"]["label"]
    assert value(metrics, "lpips") > 0
    assert {
        "fid",
        "fvd",
        "cd_fvd",
        "motion_mmd",
        "ssim",
        "sync_c",
        "sync_d",
        "mouth_offset",
        "lmd",
    } <= set(metrics)
    for name, entry in metrics.items():
        assert set(entry) - {"reason", "low", "high"} == {"value", "label", "n"}
        if "low" in entry:
            assert entry["low"] <= value(metrics, name) <= entry["high"] or name in SETS
        assert entry["label"], name
    assert {"low", "high"} <= set(metrics["ssim"])
    assert "not the official weights" in metrics["fid"]["label"]
    assert "FrameSyncNet (not syncnet_v2)" in metrics["sync_c"]["label"]
    assert 0 < value(metrics, "ssim_mouth") < value(metrics, "ssim") < 1
    assert metrics["fid"]["n"] == 80
    assert metrics["fvd"]["n"] == 4


def test_trivial_models_are_measured_as_the_model_is(output: Path) -> None:
    content = read_evaluation(output)
    assert list(content["baselines"]) == list(BASELINES)
    for name, metrics in content["baselines"].items():
        assert metrics.keys() == content["metrics"].keys(), name
        for key, entry in metrics.items():
            assert entry["label"] == content["metrics"][key]["label"]
    trivial = content["baselines"]
    # The input has its own pictures, a grey mask has nothing under it.
    assert trivial["input"]["ssim_mouth"]["value"] == 1
    assert trivial["input"]["psnr_db"]["reason"] == "the pictures are equal"
    assert value(trivial["grey"], "ssim_mouth") < 0.9
    assert value(trivial["input"], "fid") < value(trivial["grey"], "fid")
    assert value(trivial["still"], "sync_c_real") == value(content["metrics"], "sync_c_real")


def test_videos_lists_and_pictures_are_written(output: Path) -> None:
    listed = json.loads((output / "clips.json").read_text())
    assert listed["split"] == "test"
    names = [clip["clip_id"] for clip in listed["clips"]]
    assert len(names) == 2
    for kind in ("reconstruction", "cross", "silence"):
        for name in names:
            about = probe(output / kind / f"{name}.mp4")
            assert (about.width, about.height, about.fps) == (64, 64, 25)
            assert about.has_audio
    assert (output / "contact_sheet.png").stat().st_size > 1000
    assert (output / "plots.png").stat().st_size > 1000
    assert not (output / ".generated").exists()


class Store(CountingStore):
    """Notes what is decoded."""

    def __init__(self, *lengths: int) -> None:
        super().__init__(*lengths)
        self.decoded: list[tuple[str, str]] = []

    def frames(self, clip_id: str) -> np.ndarray:
        self.decoded.append(("frames", clip_id))
        return super().frames(clip_id)

    def audio(self, clip_id: str) -> np.ndarray:
        self.decoded.append(("audio", clip_id))
        return super().audio(clip_id)


class NoScores:
    """Measures nothing, and notes what there was to measure, and which videos there were."""

    labels = Labels("judge", "judge", "lpips", "mouth", "")

    def __init__(self, output: Path) -> None:
        self.output = output
        self.given: list[tuple[OpenClip, np.ndarray, np.ndarray]] = []
        self.drawn: list[int] = []
        self.silent: list[np.ndarray | None] = []

    def measure(
        self,
        clip: OpenClip,
        reconstruction: np.ndarray,
        cross: np.ndarray,
        silence: np.ndarray | None = None,
        hear_leaks: bool = True,
    ) -> Measurement:
        self.silent.append(silence)
        self.given.append((clip, reconstruction, cross))
        self.drawn.append(len(list(self.output.rglob("*.mp4"))))
        return Measurement({}, {}, {}, {}, {})


def evaluate_with(
    store: Store,
    clips: list[ChosenClip],
    load: Callable[[], Any],
    folder: Path,
    at_once: int = 1,
) -> tuple[NoScores, list[ClipRecord], list[str], GeneratedFrames]:
    tests, lines = ClipList(tuple(clips), "test", ""), list[str]()
    scores = NoScores(folder)
    generated = GeneratedFrames(folder, tests, load, lines.append, at_once)
    records = folder / "records"
    shutil.rmtree(records, ignore_errors=True)
    records.mkdir()
    job = ClipJob(tests, generated, scores, (), "still", folder, records)
    process_clips(range(len(clips)), lambda number: open_clip(store, clips[number]), job)
    read = [read_record(record_path(records, number)) for number in range(len(clips))]
    return scores, [each for each in read if each], lines, generated


def test_a_clip_is_decoded_once_and_done_with_before_the_next(tmp_path: Path) -> None:
    store = Store(20, 24)
    clips = [ChosenClip("clip0", "s", 20, "clip1", 18), ChosenClip("clip1", "t", 20, "clip0", 20)]
    scores, _, lines, generated = evaluate_with(store, clips, lambda: Brightener(30), tmp_path)
    assert sorted(store.decoded) == [
        ("audio", "clip0"),
        ("audio", "clip0"),
        ("audio", "clip1"),
        ("audio", "clip1"),
        ("frames", "clip0"),
        ("frames", "clip1"),
    ]
    assert [line.split(": ")[1].split(",")[0] for line in lines] == [
        "reconstruction 1/2",
        "cross 1/2",
        "reconstruction 2/2",
        "cross 2/2",
    ]
    assert scores.drawn == [0, 2]
    for (clip, reconstruction, cross), chosen in zip(scores.given, clips, strict=True):
        assert clip.chosen == chosen
        assert (len(clip.frames), len(clip.landmarks)) == (20, 20)
        assert np.array_equal(clip.speech, CountingStore(20, 24).audio(chosen.clip_id))
        foreign = CountingStore(20, 24).audio(chosen.driver)
        assert np.array_equal(clip.driving, foreign[: chosen.cross_frames * 640])
        assert len(reconstruction) == 20
        assert len(cross) == chosen.cross_frames
        for kind, count in (("reconstruction", 20), ("cross", chosen.cross_frames)):
            about = probe(tmp_path / kind / f"{chosen.clip_id}.mp4")
            assert about.duration_s == pytest.approx(count / 25, abs=0.03)
    assert generated._generator is None


def test_the_model_is_loaded_for_what_is_missing_only(tmp_path: Path) -> None:
    clips = [ChosenClip(f"clip{number}", "s", 20, f"clip{1 - number}", 20) for number in range(2)]
    for number, kind in ((0, "reconstruction"), (0, "cross"), (1, "cross")):
        np.save(tmp_path / f"{number:03d}-{kind}.npy", np.full((20, SIDE, SIDE, 3), 7, np.uint8))
    loaded: list[int] = []

    def load() -> Brightener:
        loaded.append(1)
        return Brightener(30)

    scores, _, lines, _ = evaluate_with(Store(20, 20), clips, load, tmp_path)
    assert loaded == [1]
    assert [line.split(": ")[1] for line in lines] == ["reconstruction 2/2, 20 frames"]
    levels = [
        (int(first[0, 0, 0, 0]), int(second[0, 0, 0, 0])) for _, first, second in scores.given
    ]
    assert levels[0] == (7, 7)
    assert levels[1][0] != 7
    assert levels[1][1] == 7
    evaluate_with(Store(20, 20), clips, lambda: pytest.fail("all is there"), tmp_path)


def test_of_clips_that_are_generated_together_only_unfinished_ones_are_measured(
    tmp_path: Path,
) -> None:
    clips = [ChosenClip(f"clip{number}", "s", 20, f"clip{1 - number}", 20) for number in range(2)]
    tests, scores = ClipList(tuple(clips), "test", ""), NoScores(tmp_path)
    for number in range(2):
        for kind in ("reconstruction", "cross"):
            shown = np.full((20, SIDE, SIDE, 3), number, np.uint8)
            np.save(tmp_path / f"{number:03d}-{kind}.npy", shown)
    (tmp_path / "records").mkdir()
    record_path(tmp_path / "records", 0).write_text("done")
    generated = GeneratedFrames(
        tmp_path, tests, lambda: pytest.fail("all is there"), lambda _: None, at_once=4
    )
    job = ClipJob(tests, generated, scores, (), "still", tmp_path, tmp_path / "records")
    process_clips((0, 1), lambda number: open_clip(Store(20, 20), clips[number]), job)
    assert [clip.chosen.clip_id for clip, _, _ in scores.given] == ["clip1"]
    assert record_path(tmp_path / "records", 0).read_text() == "done"


def test_silence_is_heard_for_some_clips_and_kept_like_the_rest(tmp_path: Path) -> None:
    heard: list[float] = []

    class Listener(Brightener):
        def speech(self, audio: np.ndarray) -> Any:
            heard.append(float(np.abs(audio).max()))
            return super().speech(audio)

    clips = [
        ChosenClip("clip0", "s", 20, "clip1", 20, 18),
        ChosenClip("clip1", "t", 20, "clip0", 20),
    ]
    scores, records, _, _ = evaluate_with(Store(20, 20), clips, lambda: Listener(30), tmp_path)
    assert [level > 0 for level in heard] == [True, True, False, True, True]
    (silent, none) = scores.silent
    assert silent is not None
    assert len(silent) == 18
    assert none is None
    assert [(each.clip_id, list(each.sheet)) for each in records] == [
        (clip.clip_id, ["input", *clip.kinds]) for clip in clips
    ]
    about = probe(tmp_path / "silence" / "clip0.mp4")
    assert about.duration_s == pytest.approx(18 / 25, abs=0.03)
    assert not (tmp_path / "silence" / "clip1.mp4").exists()
    evaluate_with(Store(20, 20), clips, lambda: pytest.fail("all is there"), tmp_path)


def test_transcripts_are_part_of_the_protocol_and_words_of_a_clip_are_used(
    dataset: Path, bundle: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words"
    words.mkdir()
    plain = evaluate(bundle, dataset, tmp_path / "plain", SHORT)
    config = replace(SHORT, transcripts=str(words))
    empty = evaluate(bundle, dataset, tmp_path / "empty", config)
    (clip,) = plain["clips"]
    assert empty["protocol_digest"] == plain["protocol_digest"]
    assert empty["metrics"]["closed_real"]["reason"] == "no transcript is given"
    (words / f"{clip}.txt").write_text("bin blue 2")
    said = evaluate(bundle, dataset, tmp_path / "said", config)
    assert said["protocol_digest"] != plain["protocol_digest"]
    assert "has no word '2'" in said["metrics"]["closed_real"]["reason"]
    # A lone clip is driven by its own speech, shifted, in which the words lie elsewhere.
    assert "shifted by half" in said["metrics"]["closed"]["reason"]


def test_pictures_hold_no_more_than_they_show(tmp_path: Path) -> None:
    clips = [ChosenClip(f"clip{number}", "s", 20, f"clip{number}", 20) for number in range(8)]
    store = Store(*[20] * len(clips))
    _, records, _, _ = evaluate_with(store, clips, lambda: Brightener(1), tmp_path)
    assert len(records) == len(clips)
    shown = [list(each.sheet) for each in records]
    assert shown == [["input", "reconstruction", "cross"]] * SHEET_CLIPS + [[]] * 2
    assert all(len(frames) == COLUMNS for each in records for frames in each.sheet.values())


def test_the_same_again_is_read_back(output: Path, dataset: Path, bundle: Path) -> None:
    before = (output / "evaluation.json").stat().st_mtime_ns
    lines: list[str] = []
    again = evaluate(bundle, dataset, output, CONFIG, progress=lines.append)
    assert again == read_evaluation(output)
    assert (output / "evaluation.json").stat().st_mtime_ns == before
    assert "nothing has changed" in lines[0]


def test_what_was_generated_before_an_interruption_is_kept(
    dataset: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tasks.evaluate.scores.Scores.measure", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(bundle, dataset, tmp_path, SHORT)
    assert len(list((tmp_path / ".generated").rglob("*.npy"))) == 3
    lines: list[str] = []
    evaluate(bundle, dataset, tmp_path, SHORT, progress=lines.append)
    assert "own speech shifted by half" in lines[0]
    assert lines[1:] == ["evaluation: measured 1/1 clips", "evaluation: drawing intervals"]


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
    for name in ("sync_c", *SETS):
        label = metrics[name]["label"]
        assert "own speech shifted by half, since there is only one test clip" in label


def test_training_clips_are_called_so_on_every_line(bundle: Path, tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "data", speakers=1, clips_per_speaker=2)
    lines: list[str] = []
    evaluate(bundle, dataset, tmp_path / "out", replace(SHORT, clips=2), progress=lines.append)
    # The warning, three videos and a measurement of each clip, and the intervals.
    assert len(lines) == 1 + 6 + 2 + 1
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
    metrics = evaluate(bundle, dataset, tmp_path / "out", config)["metrics"]
    assert metrics["sync_c"]["label"].startswith("syncnet_v2 on aligned crops")
    assert metrics["sync_c"]["value"] is not None
    for name in ("sync_accuracy", "in_sync_share"):
        assert "FrameSyncNet" in metrics[name]["label"]
        assert metrics[name]["value"] is not None
    stable = replace(
        CONFIG, clips=1, stable_syncnet_weights=str(write_converted(tmp_path / "s", small_stable()))
    )
    metrics = evaluate(bundle, dataset, tmp_path / "out", stable)["metrics"]
    for name in ("sync_accuracy", "sync_accuracy_real", "in_sync_share"):
        assert metrics[name]["label"].startswith("StableSyncNet of model.safetensors")
        assert 0 <= (metrics[name]["value"] or 0) <= 1
    plain = replace(stable, stable_syncnet_weights="")
    assert protocol_digest(stable, "tests", bundle) != protocol_digest(plain, "tests", bundle)


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
        ({"crop": "wider"}, "aligned as 'wider', but the model is for 'latentsync-1.5'"),
        ({}, "former, larger crop"),
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
    with pytest.raises(ModelFileError, match=r"wrong\.pt is a program .* is not known"):
        evaluate(bundle, dataset, tmp_path / "out", replace(SHORT, **given))
    given["trust"] = (str(path),)
    with pytest.raises(ModelFileError, match=r"wrong\.pt is TorchScript, but cannot"):
        evaluate(bundle, dataset, tmp_path / "out", replace(SHORT, **given))
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_mistakes_are_one_sentence(dataset: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no device"):
        evaluate(bundle, dataset, tmp_path, CONFIG, device="cuda:99")
    with pytest.raises(UserError, match="there is no file nothing"):
        evaluate(bundle, dataset, tmp_path, replace(CONFIG, i3d_weights="nothing.pt"))
    with pytest.raises(UserError, match="is not a list of clips"):
        evaluate(bundle, dataset, tmp_path, replace(CONFIG, clip_list=str(tmp_path)))
    with pytest.raises(ModelFileError, match="is not a model bundle"):
        evaluate(tmp_path, dataset, tmp_path, CONFIG)
    with pytest.raises(UserError, match="does not hold an evaluation"):
        read_evaluation(tmp_path / "nothing")
