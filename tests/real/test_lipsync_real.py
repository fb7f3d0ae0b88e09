"""Lip-sync of real footage gives, frame by frame, what the model gives for the same inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.media import SAMPLE_RATE, VideoWriter, read_audio, read_frames, write_flac
from datasets.media.canvas import Canvas
from models.latentsync.model import LatentSync
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.video import LipSyncResult, lip_sync_video
from tests.support.lipsync_by_hand import lip_sync_by_hand
from tests.support.real_bundle import make_real_bundle
from tests.support.small_models import shaken

COUNT = 40


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_real_bundle(tmp_path_factory.mktemp("model"))
    shaken_unet(folder)
    return folder


def shaken_unet(folder: Path) -> None:
    """Weights with which sound, reference and noise all change the picture."""
    model = LatentSync.load(folder)
    shaken(model.unet)
    model.save(folder)


def repainted(
    video: Path, audio: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, output: Path
) -> tuple[LipSyncResult, np.ndarray, list[float]]:
    """What lip-sync gives, its frames before they are encoded, and when they are shown."""
    frames: list[np.ndarray] = []
    times: list[float] = []

    class Recorder(VideoWriter):
        def write(self, picture: np.ndarray | Canvas, time_s: Any = None) -> None:
            assert isinstance(picture, Canvas)
            frames.append(picture.rgb.copy())
            times.append(float(time_s or 0.0))
            super().write(picture, time_s)

    monkeypatch.setattr(lipsync_video, "VideoWriter", Recorder)
    result = lip_sync_video(
        video,
        audio,
        output,
        bundle,
        steps=2,
        guidance=1.5,
        reference="frame",
        match=False,
        occlusion="off",
    )
    return result, np.stack(frames), times


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "fps", "ways"),
    [
        ("latentsync_demo1_25fps.mp4", 25.0, 1),
        ("latentsync_demo3_30fps.mp4", 30.0, 1),
        ("latentsync_demo1_25fps.mp4", 60.0, 2),
    ],
)
def test_forty_frames_are_what_the_model_gives_for_them(
    shared: Path,
    bundle: Path,
    name: str,
    fps: float,
    ways: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = shared / "clips" / name
    video = tmp_path / "video.mp4"
    about = next(iter(read_frames(source, fps=None))).rgb.shape
    with VideoWriter(video, about[1], about[0], fps, crf=8) as writer:
        for number, frame in enumerate(read_frames(source, fps=fps)):
            if number == COUNT:
                break
            writer.write(frame.rgb)
    audio = tmp_path / "speech.flac"
    spoken = read_audio(shared / "clips" / "retalk_2.mp4")
    write_flac(audio, spoken[: round(COUNT / fps * SAMPLE_RATE)], SAMPLE_RATE)
    result, frames, times = repainted(video, audio, bundle, monkeypatch, tmp_path / "out.mp4")
    assert (result.frames, result.faces_found, result.ways) == (COUNT, COUNT, ways)
    assert times == pytest.approx(np.arange(COUNT) / fps, abs=2e-3)
    assert ("interleaved" in " ".join(result.notes)) == (ways > 1)
    expected = lip_sync_by_hand(video, audio, bundle, count=COUNT, ways=ways, steps=2, guidance=1.5)
    # Rounding may fall on the other side where the order of sums differs.
    assert np.abs(frames.astype(int) - expected).max() <= 1
    assert (frames != expected).mean() < 1e-3
    # Something was repainted at all.
    original = next(iter(read_frames(video, fps=None))).rgb
    assert np.abs(frames[0].astype(int) - original).max() > 20
