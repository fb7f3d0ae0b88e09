from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from datasets.errors import UserError
from datasets.media import VideoWriter, probe, read_audio, read_frames, write_flac
from datasets.media.form import Form
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.playback import BACK_AND_FORTH, Plan, Shown, frames_in_order, timeline
from tasks.lipsync.repaint import RepaintJob
from tasks.lipsync.video import lip_sync_video
from tests.support.fake_generator import Brightener, recorded_frames
from tests.support.fake_scan import give_scan

RATE = 44100


def test_a_timeline_runs_back_and_forth() -> None:
    shown = timeline(np.array([0.0, 0.1, 0.2]), 0.3, Plan(0.75, BACK_AND_FORTH))
    assert [each.source for each in shown] == [0, 1, 2, 2, 1, 0, 0, 1]
    assert [each.time_s for each in shown] == pytest.approx(np.arange(8) / 10)
    cut = timeline(np.array([0.0, 0.1, 0.2]), 0.3, Plan(0.2, BACK_AND_FORTH))
    assert [each.source for each in cut] == [0, 1]


def test_irregular_times_are_mirrored() -> None:
    shown = timeline(np.array([0.0, 0.3]), 0.4, Plan(0.8, BACK_AND_FORTH))
    assert [each.source for each in shown] == [0, 1, 1, 0]
    assert [each.time_s for each in shown] == pytest.approx([0.0, 0.3, 0.4, 0.5])


def test_another_moment_is_one_of_the_video_also_where_it_turns_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 48
    times = np.arange(count) / 25
    scan = FaceScan(
        times, count / 25, [0] * count, [None] * count, np.zeros(count), np.zeros((count, 4))
    )
    monkeypatch.setattr(RepaintJob, "faces", lambda job, sources: np.array(sources))
    part = timeline(times, count / 25, Plan(5.0, BACK_AND_FORTH))
    job = RepaintJob(
        Path("v.mp4"), None, scan, Brightener(reference="away"), Form("yuv420p"), part, 5.0
    )
    references = job.references_of(0)(part)
    assert references is not None
    for start in range(len(part) - 16):
        window = np.arange(start, start + 16)
        own = np.array([part[each].source for each in window])
        assert (np.abs(references(window) - own) >= 16).all()


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames at 29.97 fps: a moving portrait, whose face is away in frames 12 to 17."""
    path = tmp_path_factory.mktemp("video") / "portrait.mp4"
    image = cv2.resize(astronaut(), (300, 300))
    rng = np.random.default_rng(0)
    with VideoWriter(path, 300, 240, 30000 / 1001, crf=6) as writer:
        for index in range(30):
            frame = np.roll(image, index // 3, axis=1)[:240].copy()
            if 12 <= index < 18:
                frame[:] = rng.integers(80, 100, (240, 300, 3))
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "speech.flac"
    tone = 0.3 * np.sin(np.arange(round(1.6 * RATE)) / 20)
    write_flac(path, tone.astype(np.float32), RATE)
    return path


def test_backwards_is_the_same_as_forwards_reversed(portrait: Path) -> None:
    frames = [frame.rgb for frame in read_frames(portrait, fps=None)]
    times = np.array([frame.time_s for frame in read_frames(portrait, fps=None)])
    order = [Shown(index, 0.0) for index in [*range(30), *range(29, -1, -1), 0, 1]]
    again = list(frames_in_order(portrait, order, times))
    assert len(again) == len(order)
    for shown, frame in zip(order, again, strict=True):
        assert (frame.rgb == frames[shown.source]).all()


@pytest.fixture
def brightener(monkeypatch: pytest.MonkeyPatch) -> Brightener:
    fake = Brightener(64)
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: fake)
    return fake


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[np.ndarray]]:
    """The frames before they are encoded."""
    frames = recorded_frames(monkeypatch)
    return iter([frames])


def test_only_the_face_changes_and_the_rest_stays_bit_for_bit(
    portrait: Path,
    speech: Path,
    brightener: Brightener,
    written: Iterator[list[np.ndarray]],
    tmp_path: Path,
) -> None:
    frames = next(written)
    output = tmp_path / "out.mp4"
    result = lip_sync_video(portrait, speech, output, tmp_path, match=False)
    about = probe(output)
    assert (about.width, about.height) == (300, 240)
    assert about.fps == pytest.approx(30000 / 1001, abs=0.01)
    assert about.audio_rate == RATE
    assert about.duration_s == pytest.approx(1.6, abs=0.04)
    assert result.frames == len(frames) == 48
    originals = [frame.rgb for frame in read_frames(portrait, fps=None)]
    plan = Plan(1.6, BACK_AND_FORTH)
    order = timeline(np.arange(30) * 1001 / 30000, 30 * 1001 / 30000, plan)
    changed = []
    for shown, frame in zip(order, frames, strict=True):
        different = (frame != originals[shown.source]).any(-1)
        changed.append(bool(different.any()))
        if not changed[-1]:
            continue
        rows, columns = np.flatnonzero(different.any(1)), np.flatnonzero(different.any(0))
        # The region of the fake is the middle of the aligned face, about 80 pixels here.
        assert rows[-1] - rows[0] < 70
        assert columns[-1] - columns[0] < 60
        assert (frame[different].mean() - originals[shown.source][different].mean()) > 5
    without = {index for index, each in enumerate(order) if 12 <= each.source < 18}
    assert {index for index, value in enumerate(changed) if not value} == without
    assert result.faces_found == 48 - len(without)


def test_a_face_that_is_only_brighter_is_shown_as_bright_as_it_was(
    portrait: Path,
    speech: Path,
    brightener: Brightener,
    written: Iterator[list[np.ndarray]],
    tmp_path: Path,
) -> None:
    frames = next(written)
    lip_sync_video(portrait, speech, tmp_path / "out.mp4", tmp_path, match=True)
    original = next(iter(read_frames(portrait, fps=None))).rgb
    different = (frames[0] != original).any(-1)
    assert different.any()
    change = frames[0][different].mean(axis=0) - original[different].mean(axis=0)
    assert np.abs(change).max() < 1.5


@pytest.mark.parametrize(("reference", "brighter"), [("still", False), ("frame", True)])
def test_colours_are_matched_unless_each_frame_is_its_own_reference(
    portrait: Path,
    speech: Path,
    brightener: Brightener,
    written: Iterator[list[np.ndarray]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reference: str,
    brighter: bool,
) -> None:
    monkeypatch.setattr(brightener, "reference", reference)
    frames = next(written)
    lip_sync_video(portrait, speech, tmp_path / "out.mp4", tmp_path)
    original = next(iter(read_frames(portrait, fps=None))).rgb
    different = (frames[0] != original).any(-1)
    change = frames[0][different].mean(axis=0) - original[different].mean(axis=0)
    assert bool(np.abs(change).max() > 3) is brighter


def test_the_sound_is_the_driving_sound(
    portrait: Path, speech: Path, brightener: Brightener, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    lip_sync_video(portrait, speech, output, tmp_path)
    given, heard = read_audio(speech), read_audio(output)
    count = min(len(given), len(heard)) - 1600
    assert np.corrcoef(given[:count], heard[:count])[0, 1] > 0.99


def test_the_result_says_how_the_video_was_extended(
    portrait: Path, speech: Path, brightener: Brightener, tmp_path: Path
) -> None:
    gap, note = lip_sync_video(portrait, speech, tmp_path / "out.mp4", tmp_path).notes
    assert gap.startswith("the face cannot be seen for 0.4 s of the output (0.4 to 0.6 s, 1.4 to ")
    assert note == (
        "1.0 s of video for 1.6 s of speech: played back and forth until the speech ends"
    )


@pytest.mark.parametrize(("level", "said"), [(0.0, "digital silence"), (2e-4, "peak -7")])
def test_silent_speech_is_said_to_be_silent(
    level: float,
    said: str,
    portrait: Path,
    brightener: Brightener,
    tmp_path: Path,
) -> None:
    quiet = tmp_path / "quiet.flac"
    tone = level * np.sin(np.arange(round(0.8 * RATE)) / 20)
    write_flac(quiet, tone.astype(np.float32), RATE)
    result = lip_sync_video(portrait, quiet, tmp_path / "out.mp4", tmp_path)
    assert result.frames == 24
    assert f"the speech is silent throughout ({said}" in result.notes[-1]


def test_progress_is_told(
    portrait: Path, speech: Path, brightener: Brightener, tmp_path: Path
) -> None:
    told: list[tuple[int, int | None, str]] = []

    def progress(done: int, total: int | None, note: str = "") -> None:
        told.append((done, total, note))

    lip_sync_video(portrait, speech, tmp_path / "out.mp4", tmp_path, progress=progress)
    assert list(dict.fromkeys(step for _, _, step in told)) == [
        "reading the speech",
        "loading the model",
        "finding faces",
        "repainting faces",
        "writing the video",
    ]
    assert (30, 30, "finding faces") in told
    assert told[-2] == (48, 48, "repainting faces")


@pytest.mark.parametrize("fps", [25, 25.0])
def test_the_video_is_converted_to_the_rate_that_was_asked_for(
    fps: float, portrait: Path, speech: Path, brightener: Brightener, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    result = lip_sync_video(portrait, speech, output, tmp_path, fps=fps)
    assert result.frames == 40
    assert result.times_s == pytest.approx(np.arange(40) / 25)
    assert probe(output).fps == 25
    assert "the video was converted from 29.97 to 25 fps" in result.notes


@pytest.mark.parametrize("fps", [0, -25.0, 0.5, 1000.0, float("nan"), float("inf")])
def test_rates_that_no_video_has_are_refused(
    fps: float, portrait: Path, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"--fps must be between 1 and 120, got {fps:g}"):
        lip_sync_video(portrait, speech, tmp_path / "out.mp4", tmp_path, fps=fps)


def test_mistakes_are_one_sentence(
    portrait: Path, speech: Path, brightener: Brightener, tmp_path: Path
) -> None:
    silent = tmp_path / "silent.mp4"
    with VideoWriter(silent, 64, 64, 25) as writer:
        for _ in range(5):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    output = tmp_path / "out.mp4"
    with pytest.raises(UserError, match="no face was found in any of the 5 frames"):
        lip_sync_video(silent, speech, output, tmp_path)
    with pytest.raises(UserError, match=r"the audio .*silent.mp4 cannot be used: no audio"):
        lip_sync_video(portrait, silent, output, tmp_path)
    with pytest.raises(UserError, match=r"the video .*text.mp4 cannot be used"):
        lip_sync_video(text, speech, output, tmp_path)
    with pytest.raises(UserError, match=r"the video .*nothing cannot be used"):
        lip_sync_video(tmp_path / "nothing", speech, output, tmp_path)
    with pytest.raises(UserError, match="is one of the inputs"):
        lip_sync_video(silent, speech, silent, tmp_path)
    assert not output.exists()
    with av.open(str(silent)) as container:
        assert container.streams.video[0].frames == 5


class Watching(Brightener):
    """Keeps how bright the faces and references of each window are."""

    def __init__(self) -> None:
        super().__init__(64)
        self.seen: list[tuple[list[int], list[int]]] = []
        self.words: list[int] = []

    def _tokens(self, wave: np.ndarray, count: int) -> torch.Tensor:
        """As loud as each frame is, in twentieths."""
        return torch.from_numpy(wave[: count * 640].reshape(count, 1, 640).mean(-1))[..., None] * 20

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        levels, shown = (
            [round(each.mean() / 20) for each in window] for window in (faces, references)
        )
        self.seen.append((levels, shown))
        self.words += [round(float(token)) for token in tokens.flatten()]
        return super().window(faces, references, tokens)


def test_every_window_is_shown_the_calmest_face_of_its_own_shot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frame k is of grey level 20 k; the mouth is open as listed, and away in frame 4."""
    video, speech = tmp_path / "v.mp4", tmp_path / "s.flac"
    with VideoWriter(video, 96, 96, 25, crf=4) as writer:
        for index in range(10):
            writer.write(np.full((96, 96, 3), 20 * index, np.uint8))
    write_flac(speech, np.full(10 * 640, 0.1, np.float32), 16000)
    middle = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, -20.0]])
    scan = FaceScan(
        times_s=np.arange(10) / 25,
        duration_s=0.4,
        shots=[0] * 5 + [1] * 5,
        matrices=[middle if index != 4 else None for index in range(10)],
        openings=np.array([0.5, 0.3, 0.2, 0.4, np.inf, 0.6, 0.9, 0.1, 0.1, 0.7]),
        poses=np.zeros((10, 4)),
    )
    watching = Watching()
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: watching)
    give_scan(monkeypatch, scan)
    result = lip_sync_video(video, speech, tmp_path / "out.mp4", tmp_path)
    assert (result.frames, result.faces_found) == (10, 9)
    first, second = watching.seen
    assert first == ([0, 1, 2, 3, *[3] * 12], [2] * 16)
    assert second == ([5, 6, 7, 8, 9, *[9] * 11], [7] * 16)


def test_where_the_video_runs_back_the_speech_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, speech = tmp_path / "v.mp4", tmp_path / "s.flac"
    with VideoWriter(video, 96, 96, 25, crf=4) as writer:
        for index in range(4):
            writer.write(np.full((96, 96, 3), 20 * index, np.uint8))
    write_flac(speech, np.repeat(np.arange(10) / 20, 640).astype(np.float32), 16000)
    matrix: np.ndarray | None = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, -20.0]])
    openings, poses = np.array([0.1, 0.2, 0.2, 0.2]), np.zeros((4, 4))
    scan = FaceScan(np.arange(4) / 25, 0.16, [0] * 4, [matrix] * 4, openings, poses)
    watching = Watching()
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: watching)
    give_scan(monkeypatch, scan)
    result = lip_sync_video(video, speech, tmp_path / "out.mp4", tmp_path)
    assert result.extended
    assert result.times_s == pytest.approx(np.arange(10) / 25)
    ((faces, shown),) = watching.seen
    assert faces[:10] == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1]
    assert shown == [0] * 16
    assert watching.words[:10] == list(range(10))


def test_behind_the_speech_the_video_stays_as_it_was_with_its_own_sound(
    brightener: Brightener, written: Iterator[list[np.ndarray]], tmp_path: Path
) -> None:
    frames = next(written)
    own, video, speech = tmp_path / "own.flac", tmp_path / "v.mp4", tmp_path / "s.flac"
    write_flac(own, np.full(16000 * 2, -0.2, np.float32), 16000)
    write_flac(speech, np.full(16000, 0.4, np.float32), 16000)
    head = cv2.resize(astronaut(), (300, 300))[:240].copy()
    with VideoWriter(video, 300, 240, 25, crf=6, audio=own) as writer:
        for _ in range(50):
            writer.write(head)
    output = tmp_path / "out.mp4"
    frames.clear()
    result = lip_sync_video(video, speech, output, tmp_path, length="keep")
    assert (result.frames, result.faces_found) == (50, 25)
    assert probe(output).duration_s == pytest.approx(2.0, abs=0.01)
    originals = [frame.rgb for frame in read_frames(video, fps=None)]
    same = [(frame == before).all() for frame, before in zip(frames, originals, strict=True)]
    assert same == [False] * 25 + [True] * 25
    heard = read_audio(output)
    assert heard[2000:14000].mean() == pytest.approx(0.4, abs=0.03)
    assert heard[18000:30000].mean() == pytest.approx(-0.2, abs=0.03)
    assert result.notes == (
        "2.0 s of video for 1.0 s of speech: after the speech the video stays as it was, with its "
        "own sound",
    )
