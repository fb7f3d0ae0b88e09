"""Whole flows as processes of their own, with Prefect's files in a temporary folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Ended:
    """A flow that has run to its end."""

    code: int
    out: str
    err: str


class FlowProcess:
    """`python -m flows.NAME` in a process group of its own, as a terminal would start it."""

    def __init__(self, name: str, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", f"flows.{name}", *arguments],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.family: set[psutil.Process] = set()

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Until something is there; fails when the flow ends before that."""
        while not ready():
            code = self.process.poll()
            if code is not None:
                out, err = self.process.communicate()
                pytest.fail(f"the flow ended with {code} before it was ready\n{out}\n{err}")
            try:
                self.process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue

    def signal_group(self, number: signal.Signals) -> Ended:
        """Send a signal to the whole process group, as Ctrl-C does, and wait for the end."""
        self.family = set(psutil.Process(self.process.pid).children(recursive=True))
        os.killpg(self.process.pid, number)
        return self.end()

    def end(self) -> Ended:
        out, err = self.process.communicate()
        return Ended(self.process.returncode, out, err)

    def orphans(self) -> list[psutil.Process]:
        """Processes of the flow that are still there, after they had time to end."""
        return list(psutil.wait_procs(self.family, timeout=30)[1])


StartFlow = Callable[..., FlowProcess]
RunFlow = Callable[..., Ended]


@pytest.fixture(scope="session")
def prefect_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which nobody has set up Prefect; its home is shared by all tests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = tmp_path_factory.mktemp("prefect")
    return env | {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start_flow(prefect_env: dict[str, str]) -> Iterator[StartFlow]:
    """Start a flow in the background."""
    started: list[FlowProcess] = []

    def start(name: str, *arguments: str, env: Mapping[str, str] | None = None) -> FlowProcess:
        flow = FlowProcess(name, arguments, {**prefect_env, **(env or {})})
        started.append(flow)
        return flow

    yield start
    for flow in started:
        if flow.process.poll() is None:
            os.killpg(flow.process.pid, signal.SIGKILL)
            flow.process.communicate()


@pytest.fixture
def run_flow(start_flow: StartFlow) -> RunFlow:
    """Run a flow to its end."""

    def run(name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
        return start_flow(name, *arguments, env=env).end()

    return run


@pytest.fixture(scope="session")
def sample_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short talking heads in a folder that looks like a user's."""
    from datasets.sample.make import make_sample

    folder = tmp_path_factory.mktemp("videos")
    make_sample(folder, clips=6, seconds=(4.0, 5.0))
    return folder
