"""Pairs, and the two views of their finished videos."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from datasets.faces.landmarks import Face
from datasets.media import SAMPLES_PER_FRAME, VideoWriter, read_audio, write_flac
from models.syncnet.syncnet_v2 import SyncNet
from tasks.evaluate import lse
from tasks.evaluate.lse import Look, evaluate_lse
from tasks.evaluate.lse_pairs import read_clip_pairs, read_pairs
from tasks.evaluate.row import Row
from tasks.recipes.evaluation import EvaluationConfig
from tasks.sync.networks import SyncCurve
from tests.support.real_bundle import make_real_bundle
from tests.support.small_dataset import landmarks

WIDE, HIGH = 120, 80


def write(path: Path, frames: int, level: int = 90, loud: float = 0.1) -> Path:
    """A video that is brighter on its left, with sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = path.with_suffix(".flac")
    noise = np.random.default_rng(level).standard_normal(frames * SAMPLES_PER_FRAME)
    write_flac(sound, (loud * noise).astype(np.float32), 16000)
    picture = np.full((HIGH, WIDE, 3), level, np.uint8)
    picture[:, : WIDE // 2] += 60
    with VideoWriter(path, WIDE, HIGH, 25, audio=sound) as writer:
        for _ in range(frames):
            writer.write(picture)
    sound.unlink()
    return path


def test_a_folders_videos_get_the_speech_of_the_next_speaker(tmp_path: Path) -> None:
    for name in ("ann/1.mp4", "ann/2.MP4", "bob/1.mp4", "bob/text.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    pairs = read_pairs(tmp_path, 10)
    assert [(each.name, each.speaker) for each in pairs] == [
        ("00000-1", "ann"),
        ("00001-2", "ann"),
        ("00002-1", "bob"),
    ]
    shown = [f"{each.audio.parent.name}/{each.audio.name}" for each in pairs]
    assert shown == ["bob/1.mp4", "bob/1.mp4", "ann/1.mp4"]
    assert len(read_pairs(tmp_path, 2)) == 2


def test_a_list_names_pairs_relative_to_itself(tmp_path: Path) -> None:
    for name in ("v 1.mp4", "a.wav"):
        (tmp_path / name).write_text("x")
    path = tmp_path / "list.txt"
    path.write_text("v 1.mp4\ta.wav\n\na.wav a.wav\n")
    pairs = read_pairs(path, 10)
    assert [(each.video.name, each.audio.name) for each in pairs] == [
        ("v 1.mp4", "a.wav"),
        ("a.wav", "a.wav"),
    ]
    for text, match in (
        ("a.wav\n", "line 1 of .* has 1 names: give a video and a sound"),
        ("a.wav b.wav\n", "line 1 of .* names .*b.wav, which is not there"),
        ("\n", "holds no videos"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=match):
            read_pairs(path, 10)
    with pytest.raises(UserError, match="--lse takes a folder of videos, or a text file"):
        read_pairs(tmp_path / "nothing", 10)


def test_lists_of_ids_name_clips_wherever_the_data_has_them(tmp_path: Path) -> None:
    root = tmp_path / "lrs"
    write(root / "mvlrs_v1" / "main" / "111" / "00001.mp4", 25)
    write(root / "mvlrs_v1" / "main" / "222" / "00002.mp4", 30)
    write(root / "mvlrs_v1" / "pretrain" / "222" / "00002.mp4", 40)
    write(root / "test" / "a-_B" / "00003.mp4", 28)
    damaged = root / "test" / "a-_B" / "00004.mp4"
    damaged.write_bytes(b"no video")
    path = tmp_path / "pairs.txt"
    path.write_bytes(
        b"\xef\xbb\xbf111/00001 222/00002\r\n"
        b"\r\n"
        b"a-_B/00003\t222/00002 further columns\r\n"
        b"222/00002 111/00001\r\n"
        b"111/00001\r\n"
        b"111/00001 222/00009\r\n"
        b"../secret/00001 222/00002\r\n"
        b"/etc/passwd 222/00002\r\n"
        b"a-_B/00004 222/00002\r\n"
        b"111/00001 222/00002\r\n"
    )
    pairs = read_clip_pairs(path, root, 100)
    assert [each.name for each in pairs] == [
        "00001-222-00002",
        "00003-222-00002",
        "00004-111-00001",
        "00005",
        "00006-222-00009",
        "00007-222-00002",
        "00008-222-00002",
        "00009-222-00002",
        "00010-222-00002",
    ]
    first = pairs[0]
    assert first.video == root / "mvlrs_v1" / "main" / "222" / "00002.mp4"
    assert first.audio == root / "mvlrs_v1" / "main" / "111" / "00001.mp4"
    assert first.speaker == "222"
    assert pairs[1].audio == root / "test" / "a-_B" / "00003.mp4"
    reasons = [each.reason for each in pairs]
    assert [bool(each) for each in reasons] == [False, False, *[True] * 6, False]
    assert reasons[2] == (
        "line 4: the video 111/00001 (1.00 s) is shorter than the audio 222/00002 (1.20 s)"
    )
    expected = "expected an audio and a video id, each <folder>/<number>"
    assert reasons[3] == f"line 5 has one name: {expected}"
    assert reasons[4] == f"line 6 names 222/00009, which is not below {root}"
    assert reasons[5] == f"line 7 has '../secret/00001': {expected}"
    assert reasons[6] == f"line 8 has '/etc/passwd': {expected}"
    assert reasons[7].startswith("line 9 names a clip that cannot be read")
    assert len(read_clip_pairs(path, root, 2)) == 2


def test_lists_of_ids_of_which_nothing_can_be_made_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    for text, match in (
        ("111/00001 222/00002\n", "no line of .* can be made: line 1 names 222/00002"),
        ("\n", "is empty: give lines of an audio and a video id"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=match):
            read_clip_pairs(path, tmp_path, 10)
    with pytest.raises(UserError, match=r"there is no folder .*: --pairs names clips below"):
        read_clip_pairs(path, tmp_path / "nothing", 10)
    with pytest.raises(UserError, match=r"list of pairs .* cannot be read"):
        read_clip_pairs(tmp_path / "none.txt", tmp_path, 10)


def test_a_bad_line_is_a_pair_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    torch.save(SyncNet().state_dict(), tmp_path / "syncnet_v2.model")
    bundle = make_real_bundle(tmp_path / "bundle")
    root = tmp_path / "lrs"
    for name, frames in (("111/00001", 21), ("222/00002", 22)):
        write(root / "main" / f"{name}.mp4", frames)
    made: list[tuple[str, str]] = []

    def copied(video: Path, audio: Path, output: Path, bundle: Path, **options: Any) -> None:
        made.append((video.parent.name, audio.parent.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, output)

    monkeypatch.setattr(lse, "lip_sync_video", copied)
    (tmp_path / "pairs.txt").write_text("222/00002 111/00001\n111/00001 222/00002\n")
    config = EvaluationConfig(clips=5, steps=1, syncnet_weights=str(tmp_path / "syncnet_v2.model"))
    lines: list[str] = []
    content = evaluate_lse(
        bundle, root, tmp_path / "out", config, "cpu", lines.append, tmp_path / "pairs.txt"
    )
    assert made == [("222", "111")]
    assert content["metrics"]["lse_c"]["n"] == 1
    left, done = content["pairs"]
    assert left["reasons"]["lse_d"].startswith("line 1: the video 111/00001 (0.84 s) is shorter")
    assert left["values"]["lse_d"] is None
    assert done["values"]["lse_d"] > 0
    assert lines[0].startswith("LSE: left out: line 1: ")
    assert lines[-1] == "LSE: 2/2 pairs"


class Judge:
    """Notes what it is shown."""

    min_frames = 21

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []

    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        self.given.append(frames)
        distances = np.full(31, 10.0)
        distances[15] = 10 - len(self.given)
        return SyncCurve(distances)


class Detector:
    """Sees a face in some frames, in the right half."""

    def __init__(self, seen: list[bool]) -> None:
        self.seen = iter(seen)

    def reset(self) -> None:
        return

    def detect(self, picture: object) -> list[Face]:
        if not next(self.seen):
            return []
        (points,) = landmarks(np.zeros(1), 40)
        return [Face((70.0, 20.0, 110.0, 60.0), points + np.array([70, 20], np.float32))]


def test_whole_frames_and_crops_are_judged_side_by_side(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", 24)
    judge, row = Judge(), Row()
    seen = [False, *[True] * 20, False, True, False]
    Look(judge, Detector(seen), 32).note(row, video)  # type: ignore[arg-type]
    whole, crops = judge.given
    assert whole.shape == (24, 224, 224, 3)
    # All of the picture, whatever its shape.
    assert abs(float(whole[:, :, :100].mean()) - 150) < 4
    assert abs(float(whole[:, :, 124:].mean()) - 90) < 4
    assert crops.shape == (24, 32, 32, 3)
    assert abs(float(crops[:, 8:24, 8:24].mean()) - 90) < 6
    assert row.values == {"lse_c": 1, "lse_d": 9, "sync_c": 2, "sync_d": 8}
    assert not row.reasons


def test_without_a_face_there_are_no_crops_but_whole_frames(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", 24)
    judge, row = Judge(), Row()
    Look(judge, Detector([True] * 11 + [False] * 13), 32).note(row, video)  # type: ignore[arg-type]
    assert row.values["lse_c"] == 1
    assert row.reasons["sync_c"].startswith("a face was found in only 46%")
    assert len(judge.given) == 1


def test_pairs_are_made_once_and_judged_by_syncnet_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    torch.save(SyncNet().state_dict(), tmp_path / "syncnet_v2.model")
    bundle = make_real_bundle(tmp_path / "bundle")
    source = tmp_path / "source"
    for name, frames in (("ann/1.mp4", 21), ("bob/1.mp4", 22), ("cy/1.mp4", 20)):
        write(source / name, frames, 60 + frames)
    made: list[tuple[str, str]] = []

    def copied(video: Path, audio: Path, output: Path, bundle: Path, **options: Any) -> None:
        assert (options["fps"], options["length"]) == (25, "cut")
        made.append((video.parent.name, audio.parent.name))
        if video.parent.name == "cy" and len(made) == 3:
            raise UserError("no face was found")
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, output)

    monkeypatch.setattr(lse, "lip_sync_video", copied)
    config = EvaluationConfig(clips=5, steps=1, syncnet_weights=str(tmp_path / "syncnet_v2.model"))
    lines: list[str] = []
    output = tmp_path / "out"
    content = evaluate_lse(bundle, source, output, config, "cpu", lines.append)
    assert made == [("ann", "bob"), ("bob", "cy"), ("cy", "ann")]
    assert lines[-1] == "LSE: 3/3 pairs"
    metrics = content["metrics"]
    assert metrics["lse_c"]["n"] == 2
    assert metrics["lse_c"]["low"] <= metrics["lse_c"]["value"] <= metrics["lse_c"]["high"]
    assert "whole frames of the finished video" in metrics["lse_d"]["label"]
    assert "clips from 21 frames" in metrics["lse_d"]["label"]
    assert metrics["sync_c"]["n"] == 0
    assert "aligned crops" in metrics["sync_c"]["label"]
    assert content["pairs"][2]["reasons"]["lse_c"] == "no face was found"
    assert json.loads((output / "lse.json").read_text()) == content
    # The same again: finished pairs are read back, the one that failed is tried again.
    again = evaluate_lse(bundle, source, output, config, "cpu", lines.append)
    assert made[3:] == [("cy", "ann")]
    assert again["pairs"][:2] == content["pairs"][:2]
    # 20 frames are too few for the search.
    assert (
        again["pairs"][2]["reasons"]["lse_c"] == "videos of 20 frames are too short: 21 are needed"
    )
    assert read_audio(output / "videos" / "00000-1.mp4").any()


def test_no_other_network_gives_lse(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--lse needs --syncnet-weights"):
        evaluate_lse(tmp_path, tmp_path, tmp_path, EvaluationConfig(), "cpu", print)
