"""Nodes, workers and drivers die at random points, and the dataset comes out the same.

    python -m pytest tests/e2e/test_cluster_faults.py                    a few rounds
    FAULT_ROUNDS=20 python -m pytest tests/e2e/test_cluster_faults.py    all of them

A real Ray cluster of three nodes on this machine: a head without CPUs and two of one CPU
each. The points are drawn from the round's seed: after so many finished groups of videos,
and a moment. Whatever the machine makes of the moment, the result must be the same.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet
import pytest

from flows.support.prefect_local import prefect_server
from tasks.runtime.worker import Worker
from tests.e2e.conftest import FlowProcess, StartFlow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "3"))
KINDS = ("node", "worker", "driver")
STAGE_WORKER = f"ray::{Worker.__name__}"
"""How Ray names the processes of its actors."""
VIDEOS = 8
MOMENT_S = 2.0
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}
"""Ray waits up to half a minute before it believes in a node's death."""


class FaultyCluster:
    """A head and two nodes, of which one can be lost and another one come."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            self.cluster.add_node(num_cpus=1)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def nodes(self) -> list[Any]:
        return sorted(self.cluster.worker_nodes, key=lambda node: str(node.node_id))

    def lose_node(self, rng: np.random.Generator, flow: FlowProcess) -> bool:
        """One of two, while something is worked on; False when the flow ended before."""
        if not self.at_work(flow):
            return False
        self.cluster.remove_node(self.nodes()[int(rng.integers(2))], allow_graceful=False)
        self.cluster.add_node(num_cpus=1)
        return True

    def workers(self) -> list[psutil.Process]:
        """Processes that hold a stage now."""
        found = []
        for node in self.nodes():
            for info in node.all_processes["raylet"]:
                with contextlib.suppress(psutil.Error):
                    for child in psutil.Process(info.process.pid).children(recursive=True):
                        if "".join(child.cmdline()[:1]).startswith(STAGE_WORKER):
                            found.append(child)
        return sorted(found, key=lambda process: process.pid)

    def at_work(self, flow: FlowProcess) -> list[psutil.Process]:
        """`workers`, as soon as there are any; none when the flow ended without."""
        while not (workers := self.workers()):
            if flow.process.poll() is not None:
                return []
            time.sleep(0.1)
        return workers

    def kill_worker(self, rng: np.random.Generator, flow: FlowProcess) -> bool:
        """False when the flow ended without one."""
        if workers := self.at_work(flow):
            with contextlib.suppress(psutil.NoSuchProcess):
                workers[int(rng.integers(len(workers)))].kill()
        return bool(workers)

    def shutdown(self) -> None:
        self.cluster.shutdown()


@dataclass
class Dataset:
    """What a finished run has published."""

    index: bytes
    ledger: bytes
    shards: dict[str, str]
    """Name -> sha256."""
    members: Counter[str] = field(default_factory=Counter)
    """Names in all shards."""
    accepted: list[str] = field(default_factory=list)
    """Clip ids in the ledger."""

    @classmethod
    def of(cls, output: Path) -> "Dataset":
        ledger = (output / "ledger.parquet").read_bytes()
        made = cls((output / "index.json").read_bytes(), ledger, {})
        for path in sorted((output / "shards").glob("*.tar")):
            made.shards[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            with tarfile.open(path) as tar:
                made.members.update(tar.getnames())
        rows = pyarrow.parquet.read_table(output / "ledger.parquet").to_pylist()
        made.accepted = [row["clip_id"] for row in rows if row["verdict"] == "accepted"]
        return made

    def check(self) -> None:
        """No clip twice, none missing, the shards those of the index."""
        assert self.accepted
        assert len(set(self.accepted)) == len(self.accepted)
        videos = {
            name.removesuffix(".mp4"): n for name, n in self.members.items() if ".mp4" in name
        }
        assert videos == dict.fromkeys(self.accepted, 1)
        assert set(self.members.values()) == {1}
        listed = {shard["name"]: shard["sha256"] for shard in json.loads(self.index)["shards"]}
        assert self.shards == listed


@dataclass
class Refresh:
    """The command, and how it is started."""

    cluster: FaultyCluster
    start: StartFlow
    videos: Path

    def begin(self, output: Path) -> FlowProcess:
        options = {
            "source": "folder",
            "input": self.videos,
            "output": output,
            "resolution": 96,
            "min-confidence": 0,
            "ray-address": self.cluster.address,
        }
        return self.start(
            "refresh_dataset", *(f"--{key}={value}" for key, value in options.items())
        )

    def finish(self, flow: FlowProcess) -> None:
        ended = flow.end()
        assert ended.code == 0, f"{ended.out[-2000:]}\n{ended.err[-4000:]}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[FaultyCluster]:
    os.environ["RAY_LOG_TO_STDERR"] = "0"
    made = FaultyCluster()
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from datasets.sample.make import make_sample

    folder = tmp_path_factory.mktemp("tiny")
    make_sample(folder, clips=VIDEOS, seconds=(2.2, 3.0))
    return folder


@pytest.fixture(scope="module")
def served(prefect_env: dict[str, str]) -> Iterator[None]:
    """One Prefect server for all runs: starting one takes longer than a round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", prefect_env["PREFECT_HOME"])
        patch.delenv("PREFECT_API_URL", raising=False)
        with prefect_server() as url:
            assert url
            prefect_env["PREFECT_API_URL"] = url
            yield
            del prefect_env["PREFECT_API_URL"]


@pytest.fixture
def refresh(
    served: None, cluster: FaultyCluster, start_flow: StartFlow, tiny_videos: Path
) -> Refresh:
    return Refresh(cluster, start_flow, tiny_videos)


@pytest.fixture(scope="module")
def expected_once() -> list[Dataset]:
    """Filled by the first test that needs it."""
    return []


@pytest.fixture
def expected(
    refresh: Refresh, expected_once: list[Dataset], tmp_path_factory: pytest.TempPathFactory
) -> Dataset:
    """The dataset of a run that nothing disturbs."""
    if not expected_once:
        output = tmp_path_factory.mktemp("undisturbed") / "dataset"
        refresh.finish(refresh.begin(output))
        expected_once.append(Dataset.of(output))
        expected_once[0].check()
    return expected_once[0]


HITS: Counter[str] = Counter()


def finished_groups(output: Path) -> int:
    return len(list(output.glob("staging/*/groups/*.json")))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_dataset_is_the_same_whatever_dies(
    seed: int, refresh: Refresh, expected: Dataset, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    output = tmp_path / "dataset"
    points = sorted(int(point) for point in rng.integers(0, VIDEOS, len(KINDS)))
    flow = refresh.begin(output)
    for kind, point in zip(rng.permutation(KINDS), points, strict=True):
        while flow.process.poll() is None and finished_groups(output) < point:
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            flow.process.wait(rng.uniform(0, MOMENT_S))
        flow = inflict(str(kind), flow, refresh, output, rng)
    refresh.finish(flow)
    made = Dataset.of(output)
    made.check()
    assert made.shards == expected.shards
    assert made.index == expected.index
    assert made.ledger == expected.ledger


def inflict(
    kind: str, flow: FlowProcess, refresh: Refresh, output: Path, rng: np.random.Generator
) -> FlowProcess:
    """Kill something; the flow that goes on."""
    if flow.process.poll() is not None:
        return flow
    if kind == "node":
        HITS[kind] += refresh.cluster.lose_node(rng, flow)
    elif kind == "worker":
        HITS[kind] += refresh.cluster.kill_worker(rng, flow)
    else:
        # A driver may also die before anything is worked on, which proves little.
        at_work = bool(refresh.cluster.workers())
        os.killpg(flow.process.pid, signal.SIGKILL)
        flow.end()
        HITS[kind] += at_work
        flow = refresh.begin(output)
    return flow


def test_faults_were_felt() -> None:
    """Rounds in which nothing was hit would prove nothing."""
    if not HITS:
        pytest.skip("no round was run")
    assert min(HITS[kind] for kind in KINDS) >= 1, HITS
