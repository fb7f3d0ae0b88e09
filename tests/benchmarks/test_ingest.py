"""The ingest's benchmark: its meter, its chain, its figures, and a whole small run."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks import ingest, ingest_chain, ingest_ours
from benchmarks.ingest_chain import ChainResult, run_chain
from benchmarks.ingest_floor import (
    Source,
    decode,
    on_all,
    see_regions,
    see_whole,
    usable,
)
from benchmarks.ingest_meter import TreeMeter, _kind
from benchmarks.ingest_ours import FlowRun, StageRun
from benchmarks.ingest_report import Inputs, Measured, figures, table
from benchmarks.ingest_where import PARTS
from benchmarks.ingest_workers import Workers
from datasets.errors import Reason
from datasets.media import VideoWriter
from tasks.ingest.config import IngestConfig
from tasks.ingest.verdicts import Thresholds
from tasks.runtime.stage import GroupOutcome, ItemGroup, Outcome, Stage
from tests.support.portrait import blank, moving

ROOT = Path(__file__).resolve().parents[2]
SIDE = 160
BUSY = """
import os, sys, time
path = sys.argv[1]
with open(path, "wb") as file:
    file.write(bytes(8 << 20))
os.unlink(path)
end = time.process_time() + 0.5
while time.process_time() < end:
    pass
time.sleep(0.5)
"""


def write_video(path: Path, frames: list[np.ndarray], sound: bool = True, fps: int = 25) -> Path:
    wav = None
    if sound:
        wav = path.with_suffix(".wav")
        noise = np.random.default_rng(0).normal(0, 0.1, len(frames) * 640)
        soundfile.write(wav, noise, 16000)
    side = frames[0].shape[0]
    with VideoWriter(path, side, side, fps, preset="ultrafast", audio=wav) as writer:
        for frame in frames:
            writer.write(frame)
    if wav:
        wav.unlink()
    return path


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1, 2) as pool:
        yield pool


def test_meter_counts_processes_that_ended_and_files_that_are_gone(tmp_path: Path) -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}, sys.argv[1]])"
    process = subprocess.Popen([sys.executable, "-c", child, str(tmp_path / "file")])
    with TreeMeter(process.pid) as meter:
        assert process.wait() == 0
    # The grandchild's loop of half a second, and what it takes to start two interpreters.
    assert 0.4 < meter.cpu_s() < 5
    assert meter.cpu_s(0.0, time.monotonic()) == pytest.approx(meter.cpu_s())
    assert meter.cpu_s(0.0, 1e-6) == pytest.approx(0.0, abs=0.2)
    assert meter.written()["work"] >= 8 << 20
    assert 0 <= meter.others_percent() <= 100


def test_meter_leaves_out_what_was_before(tmp_path: Path) -> None:
    (tmp_path / "before").write_bytes(bytes(4 << 20))
    with TreeMeter(os.getpid()) as meter:
        (tmp_path / "within").write_bytes(bytes(1 << 20))
    assert 1 << 20 <= meter.written()["work"] < 2 << 20


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("python -m flows.refresh_dataset", "work"),
        ("ray::_Worker.process", "work"),
        ("python /x/ray/_private/workers/default_worker.py --raylet-name=/x/raylet", "work"),
        ("/x/ray/core/src/ray/raylet/raylet --raylet_socket_name=x", "ray"),
        ("/x/ray/core/src/ray/gcs/gcs_server --log_dir=x", "ray"),
        ("python /x/ray/dashboard/agent.py", "ray"),
        ("ray::DashboardAgent", "ray"),
        ("python -c import uvicorn uvicorn.run(x)", "prefect"),
        ("", ""),
    ],
)
def test_kinds_of_processes(command: str, kind: str) -> None:
    assert _kind(command + " ") == kind


def test_parts_of_the_profile_are_still_called_so() -> None:
    """A renamed function would vanish from the profile without a word."""
    files = [*ROOT.glob("datasets/**/*.py"), *ROOT.glob("tasks/**/*.py")]
    text = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}
    missing = [
        (file, name)
        for functions in PARTS.values()
        for file, name in functions
        if f"def {name}(" not in text.get(file, "")
    ]
    assert not missing


def test_floor_takes_what_an_ingest_would_decode(tmp_path: Path, workers: Workers) -> None:
    good = write_video(tmp_path / "good.mp4", moving(12, SIDE))
    mute = write_video(tmp_path / "mute.mp4", moving(5, SIDE), sound=False)
    (tmp_path / "none.mp4").write_bytes(b"")
    assert usable(mute) is None
    assert usable(tmp_path / "none.mp4") is None
    source = usable(good)
    assert source is not None
    assert (source.path, source.short_side) == (good, SIDE)
    assert on_all(workers, decode, [good])[0] == 12
    assert on_all(workers, see_whole, [good])[0] == 12
    assert on_all(workers, see_regions, [good])[0] == 12


def test_chain_gives_clips_of_one_shot_with_a_face(
    tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut splits, a part without a face and a broken file are dropped, names may be equal."""
    bin_ = tmp_path / "bin"
    monkeypatch.setenv("PATH", os.environ["PATH"])
    ingest.tools(bin_)
    for name in "ab":
        (tmp_path / name).mkdir()
    face = write_video(tmp_path / "a" / "x.mp4", [*moving(60, SIDE), *[blank(SIDE, 20)] * 60])
    slow = write_video(tmp_path / "b" / "x.mp4", moving(66, SIDE), fps=30)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with Workers(1, 2) as pool:
        work = tmp_path / "work"
        work.mkdir()
        bar = Thresholds(min_confidence=-99.0, max_offset_frames=99.0)
        config = IngestConfig(resolution=64)
        result = run_chain([face, slow, broken], work, pool, config, bar)
    assert tuple(result.seconds) == ingest_chain.STAGES
    assert result.files["check"] == 2
    assert result.files["shots"] == 3
    assert sorted(result.clips) == [str(face), str(slow)]
    assert result.clips[str(face)] == [pytest.approx(60, abs=1)]
    # 66 frames at 30 fps are 55 at 25; ffmpeg repeats the last one at each of its encodes.
    assert result.clips[str(slow)] == [pytest.approx(55, abs=2)]
    assert result.files["sync"] == len(list((work / "sync").glob("*.mp4"))) == 2
    assert result.total_s == sum(result.seconds.values()) > 0
    assert result.copying_s > 0
    assert result.again_s > 0


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for each in value.values():
            yield from numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from numbers(each)
    else:
        yield float(value)


def made_up() -> tuple[Measured, Inputs]:
    measured = Measured(frames=100, source_frames=120)
    times = {
        "start of our command": 5.0,
        "decode": 1.0,
        "decode, large": 0.5,
        "floor": 4.0,
        "floor, regions": 2.0,
        "ours, command": 12.0,
        "ours, stage": 5.0,
        "ours, large": 1.5,
        "chain": 20.0,
    }
    for key, seconds in times.items():
        assert measured.note(key, seconds, 2 * seconds, 1.0)
        assert not measured.note(key, seconds + 1, seconds, 1.0)
    written = {"work": 110, "ray": 1, "prefect": 2}
    measured.flow = FlowRun(12.0, 1.0, 0.0, written, 100, 3, {"a.mp4": [50, 60]})
    measured.stage = StageRun(10.0, 15.0, 8.0, 40, 3, 9.0)
    stages = dict.fromkeys(ingest_chain.STAGES, 1.0) | {"resample": 15.0}
    clips = {"/v/a.mp4": [110], "/v/b.mp4": [70]}
    measured.chain = ChainResult(stages, {}, clips, copying_s=5.0, again_s=4.0)
    measured.where = dict.fromkeys(PARTS, 1.0)
    paths = [Path("/v/a.mp4"), Path("/v/b.mp4")]
    names = {str(path): path.name for path in paths}
    sources = [Source(path, 4.0, 1080) for path in paths]
    return measured, Inputs(paths, names, sources, sources[:1])


def test_figures_of_made_up_times() -> None:
    found = figures(*made_up(), processes=2)
    ratios = found["ratios"]
    assert ratios["chain / ours"] == pytest.approx(20 / 5)
    assert ratios["chain / our whole command"] == pytest.approx(20 / 12)
    assert ratios["chain that copies 25 fps / ours"] == pytest.approx((20 - 15 + 5) / 5)
    assert ratios["chain that detects again / ours"] == pytest.approx(24 / 5)
    assert ratios["ours / floor"] == pytest.approx(5 / 4)
    assert ratios["ours / floor of regions"] == pytest.approx(5 / 2)
    assert ratios["ours / decode, large videos"] == pytest.approx(3)
    assert ratios["bytes written / bytes of shards"] == pytest.approx(1.1)
    assert found["use"]["cores_busy_percent"] == pytest.approx(90)
    assert found["use"]["video_s_per_s_per_core"] == pytest.approx(8 / 5 / 2)
    assert found["outputs"]["ours"] == {"clips": 2, "seconds": 4.4}
    assert found["outputs"]["chain"] == {"clips": 2, "seconds": 7.2}
    assert found["inputs"]["landmark_frames_ours"] == 40
    text = table(found)
    assert "b.mp4" in text
    assert "at least 5 wanted" in text
    assert all(math.isfinite(number) for number in numbers(found))


def test_mistakes_end_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    assert ingest.main([str(videos), "--work", str(videos / "work")]) == 2
    assert "is inside the videos" in capsys.readouterr().err
    assert ingest.main([str(tmp_path / "nowhere"), "--work", str(tmp_path / "work")]) == 2
    assert "choose a folder with videos" in capsys.readouterr().err
    assert list(videos.iterdir()) == []
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_a_whole_run_on_two_clips(tmp_path: Path) -> None:
    from datasets.sample.make import make_sample

    videos, work, output = tmp_path / "videos", tmp_path / "work", tmp_path / "figures.json"
    make_sample(videos, 2, workers=1, seconds=(3.0, 3.5))
    before = {path: path.stat().st_mtime_ns for path in videos.rglob("*")}
    command = [sys.executable, "-m", "benchmarks.ingest", str(videos), "--json", str(output)]
    command += ["--work", str(work), "--processes", "1", "--large", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(output.read_text(encoding="utf-8"))
    assert all(math.isfinite(number) for number in numbers(found))
    assert found["inputs"]["decoded_files"] == found["inputs"]["large_files"] == 2
    assert all(seconds > 0 for seconds in found["wall_s"].values())
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert found["ratios"]["bytes written / bytes of shards"] >= 1
    assert found["outputs"]["ours"]["clips"] == found["outputs"]["chain"]["clips"] == 2
    assert found["outputs"]["seconds_ratio"] == pytest.approx(1, abs=0.05)
    assert list(work.iterdir()) == []
    assert before == {path: path.stat().st_mtime_ns for path in videos.rglob("*")}


class Doubling(Stage):
    """Takes 20 ms and reports what an ingest reports."""

    def process(self, item: str) -> dict[str, Any]:
        time.sleep(0.02)
        return {"video_seconds": 2.0, "landmark_frames": 50, "rows": [{"reason": ""}]}


def test_stage_runs_are_timed_from_the_first_begin_to_the_last_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray: setting up is outside the time, and each folder has a run of its own."""

    def here(stage: Stage, batches: list[ItemGroup], *, on_group: Any, **_: Any) -> None:
        stage.setup()
        time.sleep(0.5)
        for batch in batches:
            stage.begin(batch.key)
            outcomes = tuple(
                Outcome(key, stage.process(item), Reason.NONE, "", 1, 0.0)
                for key, item in batch.items
            )
            on_group(GroupOutcome(batch.key, outcomes, stage.finish(batch.key)))

    monkeypatch.setattr(ingest_ours, "ray_session", lambda **_: nullcontext())
    monkeypatch.setattr(ingest_ours, "run_groups", here)
    batches = [ItemGroup("0", (("a", "a"), ("b", "b"))), ItemGroup("1", (("c", "c"),))]
    monkeypatch.setattr(ingest_ours, "stage_and_groups", lambda *_: (Doubling(), batches))
    result = tmp_path / "runs.json"
    assert ingest_ours.main([str(tmp_path / "out"), "1", str(result), "one", "two"]) == 0
    runs = [StageRun(**each) for each in json.loads(result.read_text(encoding="utf-8"))]
    assert len(runs) == 2
    for run in runs:
        assert run.seconds >= 0.06
        assert (run.video_seconds, run.landmark_frames, run.clips) == (6.0, 150, 3)
    assert runs[1].begin - runs[0].end >= 0.5
