"""What all tests share: quiet libraries and the folder of real footage."""

import os
import signal
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "3")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Small networks gain nothing from threads, and tests share the cores with servers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Who is started in the background by a shell ignores Ctrl-C, and so would every program that a
# test starts: Prefect's worker then never ends.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

from tests.support.s3_server import s3_process, s3_server

__all__ = ["s3_process", "s3_server"]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real clips and reference numbers, next to the repository."""
    folder = ROOT.parent / "shared"
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"no real footage: {folder} is not there")
    return folder
