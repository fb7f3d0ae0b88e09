"""The README's pictures, from a small folder that looks like that of a finished demo."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import readme_pictures
from benchmarks.readme_pictures import (
    CELL,
    COLUMNS,
    CURVE,
    GAP,
    LABEL,
    cut_faces,
    main,
    telling_moments,
)
from datasets.media import VideoWriter, read_audio, read_frames, write_flac
from datasets.sample.make import make_sample
from datasets.store.local import LocalStore
from tasks.demo.lipsync_score import read_landmarks
from tasks.publish.ledger import read_ledger
from tests.support.small_dataset import write_small_dataset

FRAMES = 60


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person of the sample in all videos, the output at half their brightness."""
    demo = tmp_path_factory.mktemp("demo")
    write_small_dataset(demo / "dataset", speakers=2, resolution=32)
    person = make_sample(demo / "made", 1, workers=1, seconds=(3.0, 3.0))[0]
    for row in read_ledger(LocalStore(demo / "dataset")):
        video = demo / "dataset/sample_videos" / row["path"]
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(person, video)
    darken(person, demo / "lip_sync.mp4")
    write_flac(demo / "driving_speech.wav", read_audio(person), 16000)
    stage = demo / "train/stage1"
    stage.mkdir(parents=True)
    (stage / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n')
    opening = np.abs(np.sin(np.arange(FRAMES) / 4))
    score = {
        "offset_frames": 0.0,
        "z": 5.0,
        "input_offset_z": 1.0,
        "output_opening": opening.tolist(),
        "input_opening": opening[::-1].tolist(),
    }
    truth = {
        "files": 4,
        "clips": 4,
        "offset_within_1": 1.0,
        "cut_error_frames_max": 0.0,
        "cuts_invented": 0,
        "tracks_spanning_cuts": 0,
        "speakers_shared": [],
        "offsets": [[3.0, 3.1], [-4.0, -4.0]],
    }
    write_measurement(demo, {"truth": truth, "score": score})
    summary = {"ingest": {"inputs": 4, "clips_accepted": 4}}
    (demo / "summary.json").write_text(json.dumps(summary))
    return demo


def darken(video: Path, output: Path) -> None:
    """The video at half its brightness, so that it can be told from the input."""
    frames = [(frame.rgb // 2).astype(np.uint8) for frame in read_frames(video)]
    with VideoWriter(output, frames[0].shape[1], frames[0].shape[0], 25) as writer:
        for frame in frames:
            writer.write(frame)


def write_measurement(demo: Path, measured: dict[str, Any]) -> None:
    (demo / "state.json").write_text(json.dumps({"measure": {"result": measured}}))


def test_three_pictures_are_made_and_the_same_ones_again(finished: Path, tmp_path: Path) -> None:
    assert main([str(finished), "--output", str(tmp_path / "a")]) == 0
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"lip-sync.webp", "ingest.png", "training.png"}
    assert main([str(finished), "--output", str(tmp_path / "b")]) == 0
    for name in names:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is not None


def test_frames_of_input_and_output_lie_above_each_other(finished: Path, tmp_path: Path) -> None:
    main([str(finished), "--output", str(tmp_path)])
    sheet = cv2.imread(str(tmp_path / "lip-sync.webp"))
    assert sheet.shape[:2] == (2 * (CELL + GAP) + 3 * CURVE + 40, LABEL + COLUMNS * (CELL + GAP))
    cells = sheet[: 2 * (CELL + GAP), LABEL:].reshape(2, CELL + GAP, COLUMNS, CELL + GAP, 3)
    above, below = cells[:, :CELL, :, :CELL].transpose(0, 2, 1, 3, 4).astype(float)
    assert np.abs(above / 2 - below).mean() < 3, "the same moments of both"
    assert above.std() > 20, "there is a picture"


def test_the_moments_are_those_in_which_the_mouths_differ_most() -> None:
    before, after = np.zeros(16 * COLUMNS), np.zeros(16 * COLUMNS)
    peaks = [16 * index + 3 * index % 16 for index in range(COLUMNS)]
    after[peaks] = 1.0
    before[peaks[2]], after[peaks[2]] = 1.0, 0.0
    assert telling_moments(before, after).tolist() == peaks


def test_faces_are_cut_out_of_the_frames_that_are_asked_for(finished: Path) -> None:
    video = finished / "lip_sync.mp4"
    landmarks = read_landmarks(video)
    moments = np.array([0, 40])
    faces = cut_faces(video, moments, landmarks[moments])
    assert faces.shape == (2, CELL, CELL, 3)
    assert np.abs(faces[0].astype(float) - faces[1]).mean() > 1, "another moment"


def test_a_video_that_ends_too_early_is_named(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "short.mp4", 64, 64, 25) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(Exception, match="fewer than 10 frames"):
        cut_faces(tmp_path / "short.mp4", np.array([9]), np.ones((1, 478, 2)))


def test_what_is_no_finished_demo_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "run make demo first" in capsys.readouterr().err


def test_nobodys_own_videos_are_published(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    shutil.copytree(finished, own)
    state = json.loads((own / "state.json").read_text())
    write_measurement(own, state["measure"]["result"] | {"truth": None})
    assert main([str(own), "--output", str(tmp_path / "out")]) == 2
    assert "somebody's own videos" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_that_are_too_large_are_refused(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(readme_pictures, "MOST_BYTES", 1000)
    assert main([str(finished), "--output", str(tmp_path / "out")]) == 2
    assert "1000 are allowed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
