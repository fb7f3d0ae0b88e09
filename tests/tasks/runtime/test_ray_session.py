"""A local Ray leaves nothing behind, not even when its driver is killed."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from datasets.errors import UserError
from tasks.runtime.ray_session import ray_session

ROOT = Path(__file__).resolve().parents[3]

DRIVER = textwrap.dedent(
    """
    import os, signal, sys, threading
    from tasks.runtime.stage import Stage; from tasks.runtime.executor import run_stage
    from tasks.runtime.ray_session import ray_session

    class Hang(Stage):
        def process(self, item):
            open(item, "w").write(str(os.getpid()))
            os.chmod(item, 0o600)
            os.rename(item, item + ".pid")
            threading.Event().wait()

    if __name__ == "__main__":
        before = signal.getsignal(signal.SIGTERM)
        with ray_session(num_cpus=1):
            if len(sys.argv) > 2:
                run_stage(Hang(), [("a", sys.argv[1])], on_outcome=print)
        assert signal.getsignal(signal.SIGTERM) == before
    """
)


def test_a_killed_driver_leaves_no_process(tmp_path: Path) -> None:
    script, mark = tmp_path / "driver.py", tmp_path / "worker"
    script.write_text(DRIVER, encoding="utf-8")
    # Started away from the repository: workers must find the project all the same.
    driver = subprocess.Popen(
        [sys.executable, str(script), str(mark), "hang"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    pid_file = mark.with_suffix(".pid")
    while not pid_file.exists():
        assert driver.poll() is None, "the driver ended before its worker began"
        with pytest.raises(subprocess.TimeoutExpired):
            driver.wait(0.2)
    worker = int(pid_file.read_text())
    family = psutil.Process(driver.pid).children(recursive=True)
    assert worker in [each.pid for each in family]
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive


def test_nobody_answers_at_an_address() -> None:
    with (
        pytest.raises(UserError, match=r"no Ray cluster answers at '127.0.0.1:1'"),
        ray_session(address="127.0.0.1:1"),
    ):
        pytest.fail("there is a cluster")
