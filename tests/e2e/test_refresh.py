"""A refresh that is interrupted and killed goes on, leaves no process, and ends the same."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import FlowProcess, RunFlow, StartFlow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def arguments(videos: Path, output: Path) -> tuple[str, ...]:
    options = {"source": "folder", "input": videos, "output": output, "resolution": 128}
    return tuple(f"--{name}={value}" for name, value in options.items())


def finished_files(output: Path) -> int:
    """Every file of this small folder is a group of its own."""
    return len(list(output.glob("staging/*/groups/*.json")))


def dataset_files(output: Path) -> dict[str, bytes]:
    paths = [output / "index.json", output / "ledger.parquet", *output.glob("shards/*")]
    return {path.name: path.read_bytes() for path in paths}


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_interrupted_and_killed_runs_go_on(
    tmp_path: Path, sample_videos: Path, start_flow: StartFlow, run_flow: RunFlow
) -> None:
    output, before = tmp_path / "dataset", times(sample_videos)

    def start_and_wait_for(files: int) -> FlowProcess:
        flow = start_flow("refresh_dataset", *arguments(sample_videos, output))
        flow.wait_for(lambda: finished_files(output) >= files)
        return flow

    flow = start_and_wait_for(1)
    ended = flow.signal_group(signal.SIGINT)
    assert (ended.code, ended.err) == (130, "interrupted: run the same command again to go on\n")
    assert not flow.orphans()
    kept = finished_files(output)

    flow = start_and_wait_for(kept + 1)
    assert flow.signal_group(signal.SIGKILL).code == -signal.SIGKILL
    assert not flow.orphans()
    kept = finished_files(output)
    assert not (output / "index.json").exists()

    done = run_flow("refresh_dataset", *arguments(sample_videos, output))
    assert (done.code, done.err) == (0, "")
    assert f"{kept} of 6 files were done before" in done.out

    undisturbed = tmp_path / "undisturbed"
    assert run_flow("refresh_dataset", *arguments(sample_videos, undisturbed)).code == 0
    assert dataset_files(output) == dataset_files(undisturbed)
    assert times(sample_videos) == before

    written = {path: time for path, time in times(output).items() if path.name != ".lock"}
    again = run_flow("refresh_dataset", *arguments(sample_videos, output))
    assert again.code == 0
    assert "all 6 files were done before" in again.out
    assert "nothing has changed" in again.out
    assert written == {path: time for path, time in times(output).items() if path.name != ".lock"}


def test_a_killed_driver_takes_everything_along(
    tmp_path: Path, sample_videos: Path, start_flow: StartFlow
) -> None:
    """Only the flow's own process is killed, as the kernel does when memory runs out."""
    import psutil

    videos, output = tmp_path / "videos", tmp_path / "dataset"
    shutil.copytree(sample_videos, videos)
    flow = start_flow("refresh_dataset", *arguments(videos, output))
    flow.wait_for(lambda: finished_files(output) >= 1)
    flow.family = set(psutil.Process(flow.process.pid).children(recursive=True))
    assert len(flow.family) > 3
    flow.process.kill()
    flow.end()
    assert not flow.orphans()
