"""An output folder belongs to one run at a time."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.store.lock import file_lock, only_run

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys
from pathlib import Path
from datasets.store.lock import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another run is working"), only_run(tmp_path):
        pytest.fail("two at once")
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with only_run(tmp_path):
        pass
    with only_run(tmp_path):
        pass


def test_where_there_are_no_locks_none_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that stands for a lock would stay after a killed run and refuse the next."""

    def unknown(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unknown)
    with pytest.raises(OSError, match="not implemented"), file_lock(tmp_path / "lock"):
        pass
