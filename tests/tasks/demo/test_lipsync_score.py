from pathlib import Path

import numpy as np
import pytest

from datasets.media import VideoWriter, read_audio, write_flac
from datasets.sample.make import make_sample
from tasks.demo.lipsync_score import read_landmarks, score_lip_sync


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated person who speaks in exact sync with the sound."""
    return make_sample(tmp_path_factory.mktemp("sample"), 1, workers=1, seconds=(5.0, 5.0))[0]


def test_a_mouth_follows_its_own_sound_and_no_other(talking: Path, tmp_path: Path) -> None:
    audio = read_audio(talking)
    late = tmp_path / "late.flac"
    write_flac(late, np.roll(audio, 3 * 640), 16000)
    score = score_lip_sync(talking, late, talking)
    assert score.offset_frames == pytest.approx(3, abs=1)
    assert score.z > 4
    assert score.input_offset_z > 4
    assert np.allclose(score.output_opening, score.input_opening)
    noise = tmp_path / "noise.flac"
    write_flac(noise, 0.1 * np.random.default_rng(0).standard_normal(len(audio)), 16000)
    assert score_lip_sync(talking, noise, talking).z < score.z / 2


def test_a_video_without_a_face_has_no_score(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    with VideoWriter(path, 64, 64, 25) as writer:
        for _ in range(3):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="no face was found"):
        read_landmarks(path)
