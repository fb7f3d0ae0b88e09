"""Lip-sync of what people bring: several faces, tiny ones, odd rates, containers and sounds."""

from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from datasets.media import VideoWriter, probe, read_frames, write_flac
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.video import LipSyncResult, lip_sync_video
from tests.support.coded_video import write_coded
from tests.support.fake_generator import Brightener
from tests.support.portrait import portrait

GREY = (90, 110, 130)


@pytest.fixture(autouse=True)
def brightener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: Brightener(64))


def scene(size: tuple[int, int], *faces: tuple[int, int, int]) -> np.ndarray:
    """A picture (width, height) with heads of a side at left and top."""
    frame = np.full((size[1], size[0], 3), GREY, np.uint8)
    for left, top, side in faces:
        frame[top : top + side, left : left + side] = cv2.resize(portrait(320), (side, side))
    return frame


def video_of(path: Path, frames: list[np.ndarray], fps: float = 25) -> Path:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, width, height, fps, crf=6, preset="ultrafast") as writer:
        for frame in frames:
            writer.write(frame)
    return path


def spoken(video: Path, output: Path, seconds: float = 1.0, **options: Any) -> LipSyncResult:
    speech = output.with_suffix(".flac")
    write_flac(speech, np.full(round(16000 * seconds), 0.1, np.float32), 16000)
    return lip_sync_video(video, speech, output, output.parent, match=False, **options)


def changed(video: Path, output: Path, index: int = 0) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of what was repainted in a frame."""
    pairs = zip(read_frames(video, fps=None), read_frames(output, fps=None), strict=False)
    before, after = [pair for _, pair in zip(range(index + 1), pairs, strict=False)][-1]
    difference = after.rgb.astype(int).mean(-1) - before.rgb.astype(int).mean(-1)
    rows, columns = np.nonzero(cv2.blur(difference, (5, 5)) > 4)
    if not len(rows):
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_one_of_three_people_is_repainted(tmp_path: Path) -> None:
    places = ((10, 60, 130), (200, 20, 220), (500, 60, 130))
    video = video_of(tmp_path / "v.mp4", [scene((660, 260), *places)] * 10)
    for face, (left, top, side) in (("1", places[0]), ("largest", places[1]), ("3", places[2])):
        output = tmp_path / f"{face}.mp4"
        result = spoken(video, output, 0.4, face=face)
        box = changed(video, output)
        assert box is not None
        assert left <= box[0] < box[2] <= left + side
        assert top <= box[1] < box[3] <= top + side
        assert result.faces_found == result.frames == 10
        assert result.notes[0].startswith("3 people were seen: number ")


def test_a_face_of_48_pixels_in_4k_is_repainted(tmp_path: Path) -> None:
    video = video_of(tmp_path / "v.mp4", [scene((3840, 2160), (2900, 1500, 158))] * 3)
    result = spoken(video, tmp_path / "out.mp4", 0.12)
    assert (result.frames, result.faces_found) == (3, 3)
    box = changed(video, tmp_path / "out.mp4", 1)
    assert box is not None
    assert 2900 < box[0] < box[2] < 3058
    about = probe(tmp_path / "out.mp4")
    assert (about.width, about.height) == (3840, 2160)


def test_a_person_is_repainted_on_both_sides_of_a_cut_and_of_a_gap(tmp_path: Path) -> None:
    first, second = (scene((480, 320), place) for place in ((20, 40, 240), (300, 100, 150)))
    dark = scene((480, 320)) // 2
    frames = [first] * 12 + [second] * 12 + [dark] * 12 + [second] * 12
    video = video_of(tmp_path / "v.mp4", frames)
    result = spoken(video, tmp_path / "out.mp4", 48 / 25)
    assert result.faces_found == 36
    boxes = [changed(video, tmp_path / "out.mp4", index) for index in (5, 17, 30, 42)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[3] is not None
    assert boxes[2] is None
    assert boxes[0][2] < 260
    assert boxes[1][0] > 300
    assert boxes[3][0] > 300
    assert any("cannot be seen for 0.5 s of the output (1.0 to 1.4 s)" in n for n in result.notes)


@pytest.mark.parametrize("fps", [8, 12.5, 24000 / 1001, 50, 60, 120])
def test_every_rate_keeps_its_frames_and_their_times(fps: float, tmp_path: Path) -> None:
    count = max(4, round(fps * 0.4))
    video = video_of(tmp_path / "v.mp4", [scene((320, 320), (0, 0, 320))] * count, fps)
    result = spoken(video, tmp_path / "out.mp4", count / fps)
    assert (result.frames, result.faces_found) == (count, count)
    times = [frame.time_s for frame in read_frames(tmp_path / "out.mp4", fps=None)]
    assert times == pytest.approx(np.arange(count) / fps, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.ts", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.mov", "libx264"),
    ],
)
def test_every_container_is_read(name: str, codec: str, tmp_path: Path) -> None:
    picture = scene((320, 320), (0, 0, 320))
    frames = [
        av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        for _ in range(10)
    ]
    video = write_coded(tmp_path / name, frames, codec, options={"crf": "8"})
    result = spoken(video, tmp_path / "out.mp4", 0.4)
    assert result.faces_found == result.frames
    assert result.frames in (9, 10)
    assert changed(video, tmp_path / "out.mp4", 4) is not None


def test_sound_in_5_1_stays_so(tmp_path: Path) -> None:
    video = video_of(tmp_path / "v.mp4", [scene((320, 320), (0, 0, 320))] * 10)
    speech = tmp_path / "s.mkv"
    with av.open(str(speech), "w") as container:
        stream: Any = container.add_stream("ac3", rate=48000)
        stream.layout = "5.1"
        for index in range(20):
            block = np.zeros((6, 1536), np.float32)
            block[2] = 0.2 * np.sin(np.arange(index * 1536, (index + 1) * 1536) / 20)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="5.1")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    lip_sync_video(video, speech, tmp_path / "out.mp4", tmp_path, length="cut")
    about = probe(tmp_path / "out.mp4")
    assert (about.audio_channels, about.audio_rate) == (6, 48000)


@pytest.mark.parametrize("seconds", [0.02, 0.04, 0.3])
def test_short_sounds_give_short_videos(seconds: float, tmp_path: Path) -> None:
    video = video_of(tmp_path / "v.mp4", [scene((320, 320), (0, 0, 320))] * 10)
    result = spoken(video, tmp_path / "out.mp4", seconds)
    assert result.frames == max(1, round(seconds * 25 + 0.49))
    assert result.faces_found == result.frames
