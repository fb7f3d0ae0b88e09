"""Every flow as a deployment, run by a real Prefect server and a process worker."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.support.prefect_local import prefect_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
FLOWS = (
    "refresh-dataset",
    "relabel-dataset",
    "train-latentsync",
    "evaluate-latentsync",
    "ablate",
    "promote-model",
    "rollback-model",
    "adapt-model",
    "lip-sync",
    "lip-sync-batch",
)


@dataclass
class Prefect:
    """A server, and its command line."""

    env: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        """Run a command to its end; fails unless it succeeds."""
        done = subprocess.run(
            [PREFECT, "--no-prompt", *arguments],
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def ask(self, path: str, **body: Any) -> Any:
        """POST to the server's interface."""
        request = urllib.request.Request(
            f"{self.env['PREFECT_API_URL']}/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def prefect(prefect_env: dict[str, str]) -> Iterator[Prefect]:
    """A server with all deployments."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            patch.delenv(name)
        patch.setenv("PREFECT_HOME", prefect_env["PREFECT_HOME"])
        with prefect_server() as url:
            assert url is not None
            prefect = Prefect(prefect_env | {"PREFECT_API_URL": url})
            prefect("work-pool", "create", "local", "--type", "process")
            prefect("deploy", "--all")
            yield prefect


@pytest.fixture(scope="module")
def worker(prefect: Prefect, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A process worker on the pool; its log."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [PREFECT, "worker", "start", "--pool", "local", "--type", "process"],
            cwd=ROOT,
            env=prefect.env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        yield log
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(180)
        assert not psutil.wait_procs(family, timeout=60)[1]


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(prefect: Prefect, worker: Path) -> Run:
    """Run a deployment to its end; its final state."""

    def deployment(name: str, **parameters: Any) -> dict[str, Any]:
        pairs = [f"--param={key}={json.dumps(value)}" for key, value in parameters.items()]
        name = f"{name}/local"
        try:
            prefect("deployment", "run", name, "--watch", "--watch-timeout", "900", *pairs)
        except AssertionError as error:
            pytest.fail(f"{error}\n{worker.read_text()[-8000:]}")
        found = prefect.ask("flow_runs/filter", sort="START_TIME_DESC", limit=1)
        return dict(found[0]["state"])

    return deployment


def test_all_flows_are_deployed(prefect: Prefect) -> None:
    found = prefect.ask("deployments/filter")
    entrypoints = {each["entrypoint"] for each in found}
    assert {each["name"] for each in found} == {"local"}
    assert entrypoints == {
        f"flows/{name}.py:{name}" for name in (flow.replace("-", "_") for flow in FLOWS)
    }
    schedules = next(each["schedules"] for each in found if "refresh" in each["entrypoint"])
    assert [(each["schedule"]["cron"], each["active"]) for each in schedules] == [
        ("0 3 * * *", False)
    ]


def test_refresh_and_train_run_to_their_end(
    tmp_path: Path, sample_videos: Path, prefect: Prefect, run: Run
) -> None:
    dataset, output = tmp_path / "dataset", tmp_path / "train"
    state = run(
        "refresh-dataset",
        source="folder",
        input=str(sample_videos),
        output=str(dataset),
        resolution=128,
    )
    assert state["type"] == "COMPLETED", state
    index = json.loads((dataset / "index.json").read_text())
    assert index["counts"]["train"] > 0
    assert index["counts"]["test"] > 0
    keys = {each["key"] for each in prefect.ask("artifacts/latest/filter")}
    assert {"refresh-dataset-progress", "refresh-dataset-funnel"} <= keys

    state = run(
        "train-latentsync",
        dataset=str(dataset),
        output=str(output),
        recipe="debug",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )
    assert state["type"] == "COMPLETED", state
    assert (output / "bundle" / "config.json").is_file()
