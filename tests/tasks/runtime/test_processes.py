"""The guard kills what it was given, when its owner ends, and nothing else."""

import subprocess
import sys
import textwrap

import psutil

from tasks.runtime.processes import guard

SLEEP = [sys.executable, "-c", "import threading; threading.Event().wait()"]


def test_what_is_left_at_the_end_of_the_block_is_killed() -> None:
    left = subprocess.Popen(SLEEP)
    # Not all descendants: those of the whole test run would be killed as well.
    with guard({psutil.Process(left.pid)}):
        later = subprocess.Popen(SLEEP)
        assert left.poll() is None
    try:
        assert left.wait(timeout=30) < 0
        assert later.poll() is None
    finally:
        later.kill()
        later.wait()


def test_a_killed_owner_takes_them_along() -> None:
    code = textwrap.dedent(
        f"""
        import os, signal, subprocess
        from tasks.runtime.processes import descendants, guard
        child = subprocess.Popen({SLEEP!r}, start_new_session=True)
        with guard(descendants()):
            print(child.pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    pid = int(done.stdout)
    if psutil.pid_exists(pid):
        psutil.Process(pid).wait(timeout=30)
    assert not psutil.pid_exists(pid)
