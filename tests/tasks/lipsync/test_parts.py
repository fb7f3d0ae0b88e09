"""Interrupted jobs go on where they stopped, with the result of an uninterrupted run."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.errors import UserError
from datasets.media import VideoWriter, probe, write_flac
from datasets.progress import Progress
from tasks.lipsync import parts as parts_module
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.face_scan import FaceScan
from tasks.lipsync.parts import Parts, job_facts
from tasks.lipsync.video import lip_sync_video
from tests.support.fake_generator import Brightener
from tests.support.fake_scan import give_scan

COUNT, FPS = 70, 50


class Mixing(Brightener):
    """What it paints depends on all frames of the window and on the sound, as a network's does."""

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        self.windows += 1
        heard = float(tokens.sum())
        # Close enough to the source for its colours to be matched.
        return 0.99 * faces.astype(np.float32) + 0.01 * faces.mean(axis=0) + 2 * np.sin(heard)

    def _tokens(self, wave: np.ndarray, count: int) -> torch.Tensor:
        return torch.from_numpy(wave[: count * 640].reshape(count, 1, 640).mean(-1))[..., None]


class Linked(Mixing):
    """Windows of 3 frames, each painted after what was painted before it."""

    chained = True

    def __init__(self, resolution: int) -> None:
        super().__init__(resolution)
        self.num_frames = 3

    def window_after(
        self,
        past: Sequence[torch.Tensor],
        faces: np.ndarray,
        references: np.ndarray,
        tokens: torch.Tensor,
    ) -> tuple[np.ndarray, tuple[torch.Tensor, ...]]:
        before = float(past[-1].mean()) if past else 0.0
        painted = 0.98 * self.window(faces, references, tokens) + 0.02 * before
        return painted, (torch.full((1, 1, 2, 2), float(painted[-1].mean())),)


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """A video at 50 fps, so that it is dealt into two sequences, and 1.4 s of sound."""
    video, speech = tmp_path / "v.mp4", tmp_path / "s.flac"
    rng = np.random.default_rng(0)
    with VideoWriter(video, 96, 96, FPS, crf=4) as writer:
        for _ in range(COUNT):
            writer.write(
                np.kron(rng.integers(0, 200, (6, 6, 3)), np.ones((16, 16, 1))).astype("u1")
            )
    write_flac(speech, rng.normal(0, 0.2, 22400).astype(np.float32), 16000)
    return video, speech


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Mixing:
    """Without a face in frames 30 to 33; parts of 20 frames."""
    middle = np.array([[1.0, 0.0, -20.0], [0.0, 1.0, -20.0]])
    times = np.arange(COUNT) / FPS
    away = range(30, 34)
    give_scan(
        monkeypatch,
        FaceScan(
            times,
            COUNT / FPS,
            [0] * COUNT,
            [None if index in away else middle for index in range(COUNT)],
            np.where(np.isin(np.arange(COUNT), away), np.inf, 0.1),
            np.zeros((COUNT, 4)),
        ),
    )
    mixing: Mixing = getattr(request, "param", Mixing)(64)
    monkeypatch.setattr(lipsync_video, "FaceGenerator", lambda *_: mixing)
    monkeypatch.setattr(lipsync_video, "PART", 20)
    return mixing


def stopped_at(frame: int) -> Progress:
    def progress(done: int, total: int | None, note: str = "") -> None:
        if note == "repainting faces" and done == frame:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("frame", [1, 19, 20, 21, 33, 39, 41, 55, 61, 69])
def test_what_comes_after_an_interruption_is_the_same(
    frame: int, inputs: tuple[Path, Path], generator: Mixing, tmp_path: Path
) -> None:
    whole, again = tmp_path / "whole.mp4", tmp_path / "again.mp4"
    lip_sync_video(*inputs, whole, tmp_path, match=True)
    windows = generator.windows
    with pytest.raises(KeyboardInterrupt):
        lip_sync_video(*inputs, again, tmp_path, match=True, progress=stopped_at(frame))
    assert not again.exists()
    kept = sorted(path.name for path in (tmp_path / ".again.mp4.parts").glob("part-*"))
    assert len(kept) == (frame - 1) // 20
    generator.windows = 0
    result = lip_sync_video(*inputs, again, tmp_path, match=True)
    assert again.read_bytes() == whole.read_bytes()
    assert (result.frames, result.faces_found) == (COUNT, COUNT - 4)
    if frame > 40:
        assert generator.windows < windows
    assert not (tmp_path / ".again.mp4.parts").exists()
    assert probe(again).duration_s == pytest.approx(COUNT / FPS, abs=0.001)


@pytest.mark.parametrize("generator", [Linked], indirect=True)
@pytest.mark.parametrize("frame", [21, 33, 41, 61])
def test_a_chain_goes_on_after_an_interruption_and_paints_nothing_twice(
    frame: int, inputs: tuple[Path, Path], generator: Mixing, tmp_path: Path
) -> None:
    whole, again = tmp_path / "whole.mp4", tmp_path / "again.mp4"
    lip_sync_video(*inputs, whole, tmp_path, match=True)
    windows = generator.windows
    with pytest.raises(KeyboardInterrupt):
        lip_sync_video(*inputs, again, tmp_path, match=True, progress=stopped_at(frame))
    generator.windows = 0
    lip_sync_video(*inputs, again, tmp_path, match=True)
    assert again.read_bytes() == whole.read_bytes()
    # 70 frames, of which whole parts of 20 were finished, in two sequences of windows of 3.
    left = COUNT - (frame - 1) // 20 * 20
    assert generator.windows <= left / 3 + 6
    assert generator.windows < windows


@pytest.mark.parametrize("generator", [Linked], indirect=True)
def test_a_chain_whose_place_is_lost_gives_the_same_again(
    inputs: tuple[Path, Path], generator: Mixing, tmp_path: Path
) -> None:
    whole, again = tmp_path / "whole.mp4", tmp_path / "again.mp4"
    lip_sync_video(*inputs, whole, tmp_path, match=True)
    with pytest.raises(KeyboardInterrupt):
        lip_sync_video(*inputs, again, tmp_path, match=True, progress=stopped_at(64))
    (kept,) = (tmp_path / ".again.mp4.parts").glob("chain-*.npz")
    kept.unlink()
    lip_sync_video(*inputs, again, tmp_path, match=True)
    assert again.read_bytes() == whole.read_bytes()


def test_another_job_of_the_same_output_begins_anew(
    inputs: tuple[Path, Path], generator: Mixing, tmp_path: Path
) -> None:
    whole, again = tmp_path / "whole.mp4", tmp_path / "again.mp4"
    lip_sync_video(*inputs, whole, tmp_path, seed=2)
    with pytest.raises(KeyboardInterrupt):
        lip_sync_video(*inputs, again, tmp_path, progress=stopped_at(50))
    generator.windows = 0
    lip_sync_video(*inputs, again, tmp_path, seed=2)
    windows = generator.windows
    generator.windows = 0
    lip_sync_video(*inputs, whole, tmp_path, seed=2)
    assert windows == generator.windows


def test_a_changed_input_is_another_job(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    before = job_facts(inputs, tmp_path)
    assert job_facts(inputs, tmp_path) == before
    (tmp_path / "config.json").write_text("{}")
    assert job_facts(inputs, tmp_path) != before
    before = job_facts(inputs, tmp_path)
    inputs[1].write_bytes(inputs[1].read_bytes() + b"\0")
    assert job_facts(inputs, tmp_path) != before


def test_two_processes_do_not_make_the_same_output(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    second = Parts(output, ())
    with Parts(output, ()), pytest.raises(UserError, match="another process is making"):
        second.__enter__()
    assert not (tmp_path / ".out.mp4.parts").exists()


def test_what_somebody_else_put_there_is_not_touched(tmp_path: Path) -> None:
    theirs = tmp_path / ".out.mp4.parts"
    theirs.mkdir()
    (theirs / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match="else has that name"), Parts(tmp_path / "out.mp4", ()):
        pass
    assert (theirs / "diary.txt").read_text() == "mine"


def test_a_damaged_list_of_parts_begins_anew(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with suppress(KeyboardInterrupt), Parts(output, ("a",)) as parts:
        parts.path().write_bytes(b"video")
        parts.add(20, 10)
        (parts.folder / "part-00001.mp4.tmp").write_bytes(b"half")
        raise KeyboardInterrupt
    with suppress(KeyboardInterrupt), Parts(output, ("a",)) as parts:
        assert [(part.frames, part.repainted) for part in parts.done] == [(20, 10)]
        assert not (parts.folder / "part-00001.mp4.tmp").exists()
        (parts.folder / parts_module.JOB).write_text("{")
        raise KeyboardInterrupt
    with Parts(output, ("a",)) as parts:
        assert parts.done == []
        assert not list(parts.folder.glob("part-*"))


def test_a_killed_process_leaves_nothing_but_the_folder_and_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tasks.lipsync.parts import Parts\n"
        "parts = Parts(Path(sys.argv[1]), ()); parts.__enter__()\n"
        "parts.path().write_bytes(b'video'); parts.add(20, 10)\n"
        "print('there', flush=True); time.sleep(60)"
    )
    output = tmp_path / "out.mp4"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(output)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGTERM)
    assert [path.name for path in tmp_path.iterdir()] == [".out.mp4.parts"]
    with Parts(output, ()) as parts:
        assert parts.frames == 20
