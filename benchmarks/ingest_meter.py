"""CPU time and bytes written of a process and everything that descends from it.

A thread reads both counters of every process twenty times a second and keeps the last values
of those that have ended. What a process did after it was last seen is missed: at most 1/20 s
of each that ended, and everything of one with a shorter life. Ray's and Prefect's processes live as
long as the run, so their share of that error is negligible; of the chain's short ffmpeg calls up
to a few percent of the CPU time are missed, in the chain's favour.

Bytes are `write_bytes` of /proc/PID/io: pages that a process dirtied, including those of
files that were deleted before the disk saw them, in whole pages of 4 KiB; files in memory
(tmpfs) do not count.
"""

import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

INTERVAL_S = 0.05
NAMES_S = 1.0
"""How often command lines are read again: Ray's workers rename themselves."""
RAY_OWN = ("gcs_server", "log_monitor", "DashboardAgent", "RuntimeEnvAgent", "ray-dashboard")
RAY_SCRIPTS = ("ray/dashboard/", "ray/_private/runtime_env/", "/raylet/raylet ")
SERVER = "uvicorn.run"


@dataclass
class _Seen:
    process: psutil.Process
    kind: str = "work"
    named_at: float = 0.0
    cpu_s: float = 0.0
    written: int = 0
    first_cpu_s: float = 0.0
    first_written: int = 0


@dataclass
class TreeMeter:
    """A context manager that meters a process tree.

    Args:
        pid: the tree's root.
    """

    pid: int
    _seen: dict[tuple[int, float], _Seen] = field(default_factory=dict)
    _samples: list[tuple[float, float]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _machine: list[tuple[float, float]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._machine.append((time.monotonic(), _busy_s()))
        # What the processes did earlier does not count.
        self._read(first=True)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._read()
        self._machine.append((time.monotonic(), _busy_s()))

    def cpu_s(self, begin: float | None = None, end: float | None = None) -> float:
        """CPU seconds, over the whole time or between two readings of `time.monotonic`."""
        if begin is None or end is None:
            return self._samples[-1][1]
        return self._at(end) - self._at(begin)

    def others_percent(self) -> float:
        """Share of all cores that processes outside the tree used, in the whole time."""
        (begin, before), (end, after) = self._machine
        cores = psutil.cpu_count() or 1
        others = after - before - self._samples[-1][1]
        return 100 * max(others, 0.0) / max((end - begin) * cores, 1e-9)

    def written(self) -> dict[str, int]:
        """Bytes by kind of process: `work`, `ray` (its servers) and `prefect` (its server)."""
        total: dict[str, int] = defaultdict(int, {"work": 0, "ray": 0, "prefect": 0})
        for each in self._seen.values():
            total[each.kind] += each.written - each.first_written
        return dict(total)

    def _at(self, moment: float) -> float:
        before = self._samples[0]
        for sample in self._samples:
            if sample[0] >= moment:
                span = sample[0] - before[0]
                share = (moment - before[0]) / span if span > 0 else 1.0
                return before[1] + max(share, 0.0) * (sample[1] - before[1])
            before = sample
        return before[1]

    def _watch(self) -> None:
        while not self._over.wait(INTERVAL_S):
            self._read()

    def _read(self, first: bool = False) -> None:
        now = time.monotonic()
        with suppress(psutil.Error):
            root = psutil.Process(self.pid)
            for process in [root, *root.children(recursive=True)]:
                # A process that outlives its parent stays in the list.
                self._seen.setdefault((process.pid, process.create_time()), _Seen(process))
        for each in self._seen.values():
            with suppress(psutil.Error):
                self._update(each, now)
                if first:
                    each.first_cpu_s, each.first_written = each.cpu_s, each.written
        cpu = sum(each.cpu_s - each.first_cpu_s for each in self._seen.values())
        self._samples.append((now, cpu))

    def _update(self, each: _Seen, now: float) -> None:
        if not each.process.is_running():
            return
        with each.process.oneshot():
            times = each.process.cpu_times()
            each.cpu_s = max(each.cpu_s, times.user + times.system)
            each.written = max(each.written, each.process.io_counters().write_bytes)
        if now - each.named_at >= NAMES_S:
            each.named_at = now
            each.kind = _kind(" ".join(each.process.cmdline()) + " ") or each.kind


def _busy_s() -> float:
    """CPU seconds of the machine that were not idle."""
    times = psutil.cpu_times()
    # Guest time is also counted as user time.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - guests)


def _kind(command: str) -> str:
    if not command.strip():
        return ""
    if SERVER in command:
        return "prefect"
    own = command.startswith("ray::") or "default_worker.py" in command
    if any(name in command for name in RAY_OWN):
        return "ray"
    if not own and any(part in command for part in RAY_SCRIPTS):
        return "ray"
    return "work"
