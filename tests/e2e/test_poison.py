"""Poison on its whole way: a refresh of two hundred damaged files, and decoders that hang."""

import ctypes
import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest

from datasets.errors import Reason
from tasks.runtime.executor import run_stage
from tasks.runtime.ray_session import ray_session
from tasks.runtime.stage import Limits, Outcome, Stage
from tasks.runtime.worker import Worker
from tests.e2e.conftest import FlowProcess, StartFlow
from tests.support.mutations import COUNT, make_sources, mutants

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MOST_BYTES = 1 << 30
"""Resident memory of a worker; its models and libraries alone take a third of that."""
DEADLINE_S = 120
STAGE_WORKER = f"ray::{Worker.__name__}"
"""How Ray names the processes of its actors."""


@dataclass
class Watch:
    """What is seen of a flow's workers while it runs."""

    peaks: dict[int, int] = field(default_factory=dict)
    """Process id -> the kernel's own maximum of its resident bytes."""

    def look(self, flow: FlowProcess) -> None:
        with suppress(psutil.Error, OSError):
            for process in psutil.Process(flow.process.pid).children(recursive=True):
                with suppress(psutil.Error, OSError):
                    if "".join(process.cmdline()[:1]).startswith(STAGE_WORKER):
                        self.peaks[process.pid] = peak_bytes(process.pid)


def peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    return 0


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """sha256 and time of change of every file."""
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_two_hundred_damaged_files_are_rows(tmp_path: Path, start_flow: StartFlow) -> None:
    videos, output = tmp_path / "videos", tmp_path / "dataset"
    (videos / "good").mkdir(parents=True)
    (videos / "bad").mkdir()
    sources = make_sources(videos / "good")
    for mutant in mutants(sources):
        (videos / "bad" / mutant.name).write_bytes(mutant.data)
    before = state(videos)
    options = {"source": "folder", "input": videos, "output": output, "resolution": 96}
    # Noise is nobody's voice.
    options |= {"min-confidence": -1, "max-offset-frames": 15, "max-bad-share": 1}
    options["deadline-s"] = DEADLINE_S
    # All are the same few recordings.
    options |= {"duplicates": "files"}
    flow = start_flow("refresh_dataset", *(f"--{key}={value}" for key, value in options.items()))
    watch = Watch()
    while flow.process.poll() is None:
        watch.look(flow)
        with suppress(Exception):
            flow.process.wait(0.2)
    ended = flow.end()
    assert ended.code == 0, f"{ended.out[-2000:]}\n{ended.err[-4000:]}"
    assert state(videos) == before
    rows = pyarrow.parquet.read_table(output / "ledger.parquet").to_pylist()
    assert len({row["path"] for row in rows}) == COUNT + len(sources)
    for row in rows:
        assert (row["verdict"] == "accepted") == (row["reason"] == ""), row
        assert not row["reason"] or row["detail"], row
    given_up = (Reason.WORKER_DIED, Reason.TIMED_OUT, Reason.INTERNAL)
    assert not [row for row in rows if row["reason"] in given_up]
    accepted = {row["path"] for row in rows if row["verdict"] == "accepted"}
    # Some mutants are whole copies under other names, of which the first is published.
    (good,) = {row["duplicate_of"] or row["path"] for row in rows if row["path"] == "good/good.mp4"}
    assert good in accepted
    assert len(accepted) > 10
    # No file took its worker along: there was no need of more than each one's successor.
    assert 1 <= len(watch.peaks) <= 2 * (os.cpu_count() or 1)
    assert max(watch.peaks.values()) < MOST_BYTES, watch.peaks


@dataclass
class Hangs(Stage):
    """Items that never come back from native code."""

    folder: str

    def process(self, item: str) -> Any:
        (Path(self.folder) / item).write_text(str(os.getpid()), encoding="ascii")
        if item == "decoder":
            import av

            av.open(str(Path(self.folder) / "fifo"))
        if item == "deaf":
            # Neither a signal nor another thread of Python gets through.
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            ctypes.PyDLL(None).sleep(100_000)
        return item


@pytest.fixture
def one_cpu() -> Iterator[None]:
    with ray_session(num_cpus=1):
        yield


def test_a_hung_decoder_is_ended_by_its_deadline(one_cpu: None, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    # Someone who might write keeps the reader waiting for ever.
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    ends: dict[str, Outcome] = {}
    items = [(name, name) for name in ("decoder", "deaf", "fine")]
    try:
        run_stage(
            Hangs(str(tmp_path)),
            items,
            on_outcome=lambda outcome: ends.update({outcome.key: outcome}),
            limits=Limits(deadline_s=3.0),
        )
    finally:
        os.close(writer)
    reasons = {key: end.reason for key, end in ends.items()}
    assert reasons == {
        "decoder": Reason.TIMED_OUT,
        "deaf": Reason.TIMED_OUT,
        "fine": Reason.NONE,
    }
    for name in ("decoder", "deaf"):
        assert "3 s" in ends[name].detail
        with suppress(psutil.NoSuchProcess):
            psutil.Process(int((tmp_path / name).read_text())).wait(30)
