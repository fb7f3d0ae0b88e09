"""The sample as a whole: truth, resuming, and mouths that FaceMesh sees speaking."""

import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from datasets.sample.make import make_driving_speech, make_sample, speech, speech_of
from datasets.sample.plan import plan_clip

SHORT = (0.6, 0.7)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    out = tmp_path_factory.mktemp("sample")
    return out, make_sample(out, clips=2, seed=3, workers=2, seconds=SHORT)


def frames(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def test_clips_and_their_truth(sample: tuple[Path, list[Path]]) -> None:
    out, paths = sample
    assert paths == [out / "speaker_00/clip_000.mp4", out / "speaker_01/clip_001.mp4"]
    for number, path in enumerate(paths):
        plan = plan_clip(number, 3, SHORT)
        truth = json.loads(path.with_suffix(".json").read_text())
        assert truth["speaker"] == path.parent.name
        assert truth["fps"] == pytest.approx(float(plan.fps))
        assert truth["offset_frames"] == plan.offset_frames
        assert (truth["cuts_s"], truth["faceless_s"], truth["faces"]) == ([], [], 1)
        assert truth["audio"] == "speech"
        assert all(len(syllable) == 3 for syllable in truth["syllables"])
        assert truth["syllables"]
        assert sum(1 for _ in frames(path)) == plan.frames == truth["frames"]


def test_finished_clips_are_kept_and_others_made_alike(sample: tuple[Path, list[Path]]) -> None:
    out, (kept, lost) = sample
    was_kept, was_lost = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.with_suffix(".json").unlink()
    stale = lost.with_name(f".{lost.name}.0123abcd.tmp")
    stale.write_bytes(b"half a clip")
    seen: list[tuple[object, ...]] = []
    make_sample(out, 2, 3, workers=1, seconds=SHORT, progress=lambda *state: seen.append(state))
    assert seen == [(1, 2), (2, 2)]
    assert kept.stat().st_mtime_ns == was_kept
    assert lost.read_bytes() == was_lost
    assert not stale.exists()


def test_another_seed_is_not_taken_for_the_same(sample: tuple[Path, list[Path]]) -> None:
    out, _ = sample
    seen: list[tuple[int, int | None]] = []

    class StopEarlyError(Exception):
        pass

    def stop(done: int, total: int | None, note: str = "") -> None:
        seen.append((done, total))
        raise StopEarlyError

    with pytest.raises(StopEarlyError):
        make_sample(out, clips=2, seed=4, workers=1, seconds=SHORT, progress=stop)
    assert seen == [(0, 2)]


def test_face_mesh_measures_the_mouth_that_was_meant(tmp_path: Path) -> None:
    import mediapipe

    seconds = (2.4, 2.4)
    (path,) = make_sample(tmp_path, clips=1, seed=1, workers=1, seconds=seconds)
    plan = plan_clip(0, 1, seconds)
    measured: list[float] = []
    with mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True) as mesh:
        for rgb in frames(path):
            found = mesh.process(rgb).multi_face_landmarks
            assert found, f"no face in frame {len(measured)}"
            points = np.array([(p.x * plan.size[0], p.y * plan.size[1]) for p in found[0].landmark])
            eyes = np.linalg.norm(points[33] - points[263])
            measured.append(float(np.linalg.norm(points[13] - points[14]) / eyes))
    times = (np.arange(plan.frames) + 0.5) / float(plan.fps)
    meant = speech_of(plan).opening(times)
    assert np.corrcoef(measured, meant)[0, 1] > 0.9
    assert np.median(np.array(measured)[meant < 0.02]) < 0.04


def test_speech_and_driving_speech(tmp_path: Path) -> None:
    audio, opening = speech(2.0, 5)
    assert audio.shape == (32000,)
    assert audio.dtype == np.float32
    assert opening.shape == (50,)
    assert 0.4 < opening.max() <= 1.0
    path = make_driving_speech(tmp_path / "deep" / "driving.wav", seconds=3.0)
    written, rate = soundfile.read(path, dtype="float32")
    assert (rate, written.shape) == (16000, (48000,))
    assert 0.2 < np.abs(written).max() < 0.75
    assert not np.allclose(written, speech(3.0, 999)[0], atol=1e-3)
