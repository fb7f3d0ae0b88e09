"""No process outlives the one that needed it, however that one ended.

`die_with_parent` is for code that runs in the process itself. `guard` is for processes
that a library starts and that cannot run our code: Ray's agents, for example, stay for a minute
after a `kill -9` of the driver. The guard is a small process that waits for the end of a pipe.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
"""The repository, the folder in which our other processes are started."""
PR_SET_PDEATHSIG = 1
SAME_S = 2.0
"""Seconds; start times of a process id closer than this belong to one process."""


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; does nothing on other systems."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # The parent died before the request was made, so no signal will come.
        os.kill(os.getpid(), signal.SIGKILL)


def descendants() -> set[psutil.Process]:
    """Every current descendant of this process."""
    return set(psutil.Process().children(recursive=True))


@contextmanager
def guard(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Kill these processes when the block or this process ends, whichever comes first."""
    guard = subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys; sys.path[:] = sys.argv[1:]\n" + _MAIN, *sys.path],
        stdin=subprocess.PIPE,
        text=True,
        # Neither Ctrl-C nor the end of the process group may end the guard.
        start_new_session=True,
    )
    assert guard.stdin is not None
    with suppress(BrokenPipeError):
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                guard.stdin.write(f"{each.pid} {each.create_time()}\n")
        guard.stdin.flush()
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            guard.stdin.close()
        guard.wait()


_MAIN = "from tasks.runtime.processes import watch; watch()"


def watch() -> None:
    """The guard's own process: read the list, wait for the end of the pipe, kill."""
    lines = [line.split() for line in sys.stdin if line.strip()]
    for pid, began in lines:
        with suppress(psutil.Error):
            process = psutil.Process(int(pid))
            if abs(process.create_time() - float(began)) < SAME_S:
                process.kill()
