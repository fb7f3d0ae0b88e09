from pathlib import Path

import numpy as np
import pytest

from datasets.errors import UserError
from datasets.media import read_audio
from tasks.demo.parts import check_claims, choose_material, restore_measurement, worse
from tasks.demo.truth_check import Truth, check_truth
from tasks.recipes.recipe import parse_overrides, recipe
from tasks.train.reuse import reuse_stages
from tests.support.small_dataset import write_small_dataset


def test_the_worse_model_has_hardly_any_steps() -> None:
    whole = recipe("tiny")
    changed = recipe("tiny", parse_overrides(worse(whole)))
    for name in ("stage1", "stage2"):
        assert 1 <= changed.unet(name).steps < 0.05 * whole.unet(name).steps
    assert len(worse(recipe("syncdiff-tiny"))) == 2


def test_finished_stages_are_copied_once(tmp_path: Path) -> None:
    (tmp_path / "a/syncnet").mkdir(parents=True)
    (tmp_path / "a/syncnet/done.json").write_text("1")
    for _ in range(2):
        reuse_stages(tmp_path / "a", tmp_path / "b", ("autoencoder", "syncnet"))
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["syncnet"]
    (tmp_path / "b/syncnet/done.json").write_text("2")
    reuse_stages(tmp_path / "a", tmp_path / "b", ("syncnet",))
    assert (tmp_path / "b/syncnet/done.json").read_text() == "2"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_small_dataset(tmp_path / "data", speakers=3, resolution=32)


def test_the_video_is_of_the_test_split_and_the_speech_of_somebody_else(
    dataset: Path, tmp_path: Path
) -> None:
    from datasets.shards.clips import ClipStore

    videos = tmp_path / "videos"
    store = ClipStore(dataset, memory_bytes=0)
    for clip in store.clips:
        (videos / clip.path).parent.mkdir(parents=True, exist_ok=True)
        (videos / clip.path).touch()
    found = choose_material(dataset, videos, tmp_path, generated=False, seconds=1.0)
    clips = {videos / clip.path: clip for clip in store.clips}
    assert clips[found.source].split == "test"
    audio = read_audio(found.driving)
    assert len(audio) == 16000
    owners = [
        clip.speaker
        for clip in store.clips
        if np.allclose(store.audio(clip.clip_id)[:16000], audio, atol=1e-4)
    ]
    assert owners
    assert found.speaker not in owners


def test_generated_speech_is_made_for_generated_videos(dataset: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos/speaker_00"
    videos.mkdir(parents=True)
    (videos / "0.mp4").touch()
    found = choose_material(dataset, tmp_path / "videos", tmp_path, generated=True, seconds=1.0)
    assert found.driving.name == "driving_speech.wav"
    assert len(read_audio(found.driving)) == 16000


def test_videos_that_are_gone_are_one_sentence(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of the videos"):
        choose_material(dataset, tmp_path, tmp_path, generated=False, seconds=1.0)


def test_measurements_survive_json() -> None:
    score = {
        "offset_frames": 0.5,
        "z": 7.0,
        "input_offset_z": 1.0,
        "output_opening": [0.1, 0.2],
        "input_opening": [0.3],
    }
    truth, found = restore_measurement({"truth": None, "score": score})
    assert truth is None
    assert found.z == 7.0
    assert found.output_opening.tolist() == [0.1, 0.2]


def test_faults_of_ingestion_are_said() -> None:
    rows = [
        {
            "path": "a.mp4",
            "clip_id": name,
            "speaker": "a",
            "shot": 0,
            "start_s": 0.0,
            "end_s": 5.0,
            "av_offset_frames": 0.0,
            "verdict": "accepted",
        }
        for name in ("1", "2")
    ]
    truths: dict[str, Truth] = {"a.mp4": {"offset_frames": 0, "cuts_s": [2.0]}}
    faults = check_claims(check_truth(rows, truths, {"1": "train", "2": "test"}))
    assert faults == ["2 tracks span a cut", "speakers in both train and test: a"]
    assert check_claims(None) == []
