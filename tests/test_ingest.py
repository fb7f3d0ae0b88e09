"""One file in, clips and rows out, whatever the file is."""

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from datasets.media import SAMPLE_RATE, SAMPLES_PER_FRAME, VideoWriter, read_frames, write_flac
from datasets.records import COLUMNS
from datasets.sources import SourceItem
from tasks.ingest import IngestConfig, IngestStage, audio_part, clip_prefix, is_silent
from tasks.sync_score import ClipSignals, OffsetScore
from tests.portrait import blank, moving

CONFIG = IngestConfig(resolution=96, min_frames=20, max_clip_frames=60)
Made = tuple[Path, np.ndarray]


class FixedScorer:
    """Says the same of every clip."""

    name = "mouth-audio"
    needs_frames = False
    min_confidence = 3.0

    def __init__(self) -> None:
        self.offset = 0.0

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        for clip in clips:
            assert clip.landmarks.shape == (len(clip.audio) // SAMPLES_PER_FRAME, 478, 2)
        return [OffsetScore(self.offset, 4.5) for _ in clips]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ingest")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> IngestStage:
    made = IngestStage(CONFIG, folder / "staging")
    made.setup()
    made._scorer = FixedScorer()
    return made


@pytest.fixture
def stage(loaded: IngestStage) -> IngestStage:
    assert isinstance(loaded._scorer, FixedScorer)
    loaded._scorer.offset = 0.0
    return loaded


def write(folder: Path, name: str, frames: list[np.ndarray], level: float = 0.2) -> Made:
    """A video with noise as its sound; the noise."""
    drawn = np.random.default_rng(1).normal(0, level, len(frames) * SAMPLES_PER_FRAME)
    noise = np.clip(drawn, -1, 1).astype(np.float32)
    sound = folder / f"{name}.flac"
    write_flac(sound, noise, SAMPLE_RATE)
    path = folder / f"{name}.mp4"
    with VideoWriter(path, 320, 320, 25, audio=sound, preset="ultrafast") as writer:
        for frame in frames:
            writer.write(frame)
    return path, noise


def item(path: Path) -> SourceItem:
    return SourceItem(path.name, path, path.name, "somebody")


def reasons(result: dict[str, Any]) -> list[str]:
    return [row["reason"] for row in result["rows"]]


@pytest.fixture(scope="module")
def talking(folder: Path) -> Made:
    return write(folder, "talking", moving(45))


def test_a_face_becomes_a_clip(stage: IngestStage, talking: Made) -> None:
    path, _ = talking
    result = stage.process(item(path))
    (row,) = result["rows"]
    assert tuple(row) == COLUMNS
    assert (row["reason"], row["num_frames"], row["shot"], row["track"]) == ("", 45, 0, 0)
    assert (row["start_s"], row["end_s"]) == (0, 45 / 25)
    assert row["speaker"] == "somebody"
    assert row["coverage"] == 1
    assert 80 < row["face_px"] < 300
    assert (row["av_offset_frames"], row["sync_confidence"]) == (0.0, 4.5)
    (clip,) = result["clips"]
    assert clip["clip_id"] == row["clip_id"] == f"{clip_prefix('talking.mp4')}-s00-t00-00"
    files = {kind: stage.staging / name for kind, name in clip["files"].items()}
    assert set(files) == {"mp4", "flac", "npy", "json"}
    shown = [frame.rgb.shape for frame in read_frames(files["mp4"])]
    assert shown == [(96, 96, 3)] * 45
    landmarks = np.load(files["npy"])
    assert landmarks.shape == (45, 478, 2)
    assert landmarks.dtype == np.float32
    assert 30 < landmarks[:, 4].mean() < 70, "the nose is in the middle"
    sound = soundfile.info(files["flac"])
    assert (sound.frames, sound.samplerate, sound.channels) == (45 * 640, SAMPLE_RATE, 1)
    facts = json.loads(files["json"].read_text())
    assert facts["clip_id"] == row["clip_id"]
    assert (facts["num_frames"], facts["resolution"], facts["scorer"]) == (45, 96, "mouth-audio")
    assert len(result["digest"]) == 64
    assert result["video_seconds"] == pytest.approx(45 / 25)
    assert result["cuts_s"] == []
    json.dumps(result)


def test_again_gives_the_same_bytes(stage: IngestStage, talking: Made) -> None:
    def files() -> dict[str, bytes]:
        (clip,) = stage.process(item(talking[0]))["clips"]
        return {k: (stage.staging / name).read_bytes() for k, name in clip["files"].items()}

    assert files() == files()
    assert not list(stage.staging.glob("*.tmp"))


def test_late_audio_is_moved_by_samples(stage: IngestStage, folder: Path) -> None:
    frames = moving(45)
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, 45 * SAMPLES_PER_FRAME)
    sound = folder / "exact.wav"
    soundfile.write(sound, noise, SAMPLE_RATE, subtype="PCM_16")
    path = folder / "exact.mkv.mp4"
    with VideoWriter(path, 320, 320, 25, audio=sound, preset="ultrafast") as writer:
        for frame in frames:
            writer.write(frame)
    assert isinstance(stage._scorer, FixedScorer)
    decoded: dict[float, np.ndarray] = {}
    for offset in (0.0, 4.25, -3.0):
        stage._scorer.offset = offset
        (clip,) = stage.process(item(path))["clips"]
        decoded[offset] = soundfile.read(stage.staging / clip["files"]["flac"])[0]
    late, early = round(4.25 * 640), 3 * 640
    assert (decoded[4.25][:-late] == decoded[0.0][late:]).all()
    assert (decoded[-3.0][early:] == decoded[0.0][:-early]).all()
    assert not decoded[-3.0][:early].any()


def test_cuts_split_clips_and_faceless_shots_have_a_row(stage: IngestStage, folder: Path) -> None:
    dark = [np.clip(f * 0.4 + 10, 0, 255).astype(np.uint8)[:, ::-1] for f in moving(30)]
    path, _ = write(folder, "cuts", moving(30) + [blank()] * 25 + dark)
    result = stage.process(item(path))
    assert [round(cut * 25) for cut in result["cuts_s"]] == [30, 55]
    assert [(row["shot"], row["num_frames"], row["reason"]) for row in result["rows"]] == [
        (0, 30, ""),
        (1, 25, "no_face"),
        (2, 30, ""),
    ]
    assert [row["start_s"] for row in result["rows"]] == [0, 30 / 25, 55 / 25]
    assert len({clip["clip_id"] for clip in result["clips"]}) == 2


def test_short_tracks_and_small_faces_leave_no_files(stage: IngestStage, folder: Path) -> None:
    path, _ = write(folder, "short", moving(15))
    result = stage.process(item(path))
    assert reasons(result) == ["too_short"]
    assert result["clips"] == []
    strict = IngestStage(
        IngestConfig(resolution=96, min_frames=10, max_clip_frames=60, min_face_px=400),
        stage.staging,
    )
    strict._detector, strict._scorer = stage._detector, stage._scorer
    result = strict.process(item(path))
    assert reasons(result) == ["face_too_small"]
    assert "400" in result["rows"][0]["detail"]
    assert not list(stage.staging.glob(f"*/{clip_prefix('short.mp4')}*"))


Write = Callable[[Path], Path]


def _text(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("no video\n" * 50)
    return path


def _empty(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.touch()
    return path


def _mute(folder: Path) -> Path:
    path = folder / "mute.mp4"
    with VideoWriter(path, 64, 64, 25) as writer:
        for _ in range(5):
            writer.write(blank(64))
    return path


def _silent(folder: Path) -> Path:
    return write(folder, "silent", [blank()] * 5, level=0.0)[0]


def _sound_only(folder: Path) -> Path:
    path = folder / "sound.flac"
    write_flac(path, np.zeros(16000, np.float32), SAMPLE_RATE)
    return path


def _gone(folder: Path) -> Path:
    return folder / "gone.mp4"


@pytest.mark.parametrize(
    ("make", "reason", "step"),
    [
        (_text, "not_media", "probe"),
        (_empty, "empty_file", "probe"),
        (_sound_only, "no_video", "probe"),
        (_gone, "unreadable", "probe"),
        (_mute, "no_audio", "audio"),
        (_silent, "silent", "audio"),
    ],
)
def test_bad_files_are_rows(
    stage: IngestStage, tmp_path: Path, make: Write, reason: str, step: str
) -> None:
    result = stage.process(item(make(tmp_path)))
    (row,) = result["rows"]
    assert (row["reason"], row["stage"], row["verdict"]) == (reason, step, "rejected")
    assert row["detail"]
    assert "\n" not in row["detail"]
    assert result["clips"] == []
    json.dumps(result)


def test_a_truncated_file_gives_what_it_has_or_a_reason(
    stage: IngestStage, talking: Made, tmp_path: Path
) -> None:
    whole = talking[0].read_bytes()
    for share in (0.1, 0.6, 0.95):
        path = tmp_path / f"cut-{share}.mp4"
        path.write_bytes(whole[: int(len(whole) * share)])
        result = stage.process(item(path))
        assert result["rows"]
        assert all(row["reason"] or row["clip_id"] for row in result["rows"])


def test_an_interrupted_run_leaves_nothing_half_done(
    stage: IngestStage, talking: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stage._scorer is not None

    def full(*_: object) -> list[OffsetScore]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage._scorer, "score", full)
    with pytest.raises(OSError, match="No space left"):
        stage.process(item(talking[0]))
    assert not list(stage.staging.glob("*.tmp"))


def test_travels_to_workers() -> None:
    stage = IngestStage(CONFIG, Path("somewhere"))
    again = pickle.loads(pickle.dumps(stage))
    assert again == stage
    assert again.resources.cpus == 1


def test_config_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="clips of 50 to 80 frames"):
        IngestConfig(max_clip_frames=80)


def test_clip_ids_tell_files_apart() -> None:
    assert clip_prefix("idA/x/00001.mp4").startswith("idA-x-00001-")
    names = ["a/00001.mp4", "b/00001.mp4", "a/00001.avi", "a-00001.mp4", "ä/1.mp4", "a.b/c"]
    made = [clip_prefix(name) for name in names]
    assert len(set(made)) == len(names)
    assert all("." not in name and "/" not in name and name.isascii() for name in made)
    assert len(clip_prefix("x" * 300 + ".mp4")) < 80


def test_parts_of_the_audio() -> None:
    audio = np.arange(10 * 640, dtype=np.float32)
    assert (audio_part(audio, 2, 3, 0.0) == audio[2 * 640 : 5 * 640]).all()
    assert (audio_part(audio, 2, 3, 1.5) == audio[3 * 640 + 320 : 6 * 640 + 320]).all()
    early = audio_part(audio, 0, 2, -1.0)
    assert not early[:640].any()
    assert (early[640:] == audio[:640]).all()
    late = audio_part(audio, 8, 4, 0.0)
    assert (late[: 2 * 640] == audio[8 * 640 :]).all()
    assert not late[2 * 640 :].any()
    assert not audio_part(audio, 50, 2, 0.0).any()


def test_silence() -> None:
    rng = np.random.default_rng(0)
    assert is_silent(np.zeros(16000, np.float32))
    assert is_silent(np.zeros(0, np.float32))
    assert is_silent((rng.normal(0, 1e-4, 16000)).astype(np.float32))
    speech = np.zeros(32000, np.float32)
    speech[:4000] = rng.normal(0, 0.05, 4000)
    assert not is_silent(speech)
