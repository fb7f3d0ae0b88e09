"""Nodes, workers and drivers die at random points, and the dataset comes out the same.

    python -m pytest tests/e2e/test_cluster_faults.py                    a few rounds
    FAULT_ROUNDS=20 python -m pytest tests/e2e/test_cluster_faults.py    all of them

A real Ray cluster of three nodes on this machine: a head without CPUs and two of one CPU
each. The points are fractions of the time that an undisturbed run takes, drawn from the
round's seed; whatever the machine makes of them, the result must be the same.
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

from flows.runtime import prefect_server
from tests.e2e.conftest import FlowProcess, StartFlow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "3"))
KINDS = ("node", "worker", "driver")
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

    def lose_node(self, rng: np.random.Generator) -> None:
        self.cluster.remove_node(self.nodes()[int(rng.integers(2))], allow_graceful=False)
        self.cluster.add_node(num_cpus=1)

    def workers(self) -> list[psutil.Process]:
        """Processes that hold a stage now."""
        found = []
        for node in self.nodes():
            for info in node.all_processes["raylet"]:
                with contextlib.suppress(psutil.Error):
                    for child in psutil.Process(info.process.pid).children(recursive=True):
                        if "::_Worker" in " ".join(child.cmdline()):
                            found.append(child)
        return sorted(found, key=lambda process: process.pid)

    def kill_worker(self, rng: np.random.Generator, flow: FlowProcess) -> bool:
        """As soon as there is one; False when the flow ended without."""
        while not (workers := self.workers()):
            if flow.process.poll() is not None:
                return False
            time.sleep(0.1)
        with contextlib.suppress(psutil.NoSuchProcess):
            workers[int(rng.integers(len(workers)))].kill()
        return True

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
    from datasets.sample import make_sample

    folder = tmp_path_factory.mktemp("tiny")
    make_sample(folder, clips=8, seconds=(2.2, 3.0))
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


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """Filled by the first test that needs it."""
    return {}


@pytest.fixture
def refresh(
    served: None, cluster: FaultyCluster, start_flow: StartFlow, tiny_videos: Path
) -> Refresh:
    return Refresh(cluster, start_flow, tiny_videos)


@pytest.fixture
def expected(
    refresh: Refresh, undisturbed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Dataset, float]:
    """The dataset of a run that nothing disturbs, and the seconds it took."""
    if not undisturbed:
        output = tmp_path_factory.mktemp("undisturbed") / "dataset"
        began = time.monotonic()
        refresh.finish(refresh.begin(output))
        undisturbed["seconds"] = time.monotonic() - began
        undisturbed["dataset"] = Dataset.of(output)
        undisturbed["dataset"].check()
    return undisturbed["dataset"], undisturbed["seconds"]


HITS: Counter[str] = Counter()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_dataset_is_the_same_whatever_dies(
    seed: int, refresh: Refresh, expected: tuple[Dataset, float], tmp_path: Path
) -> None:
    whole, seconds = expected
    rng = np.random.default_rng(seed)
    output = tmp_path / "dataset"
    flow = refresh.begin(output)
    for kind in rng.permutation(KINDS):
        # Points within a run; later ones than its end find nothing to kill, and the next
        # fault then meets a run that has everything done already.
        with contextlib.suppress(subprocess.TimeoutExpired):
            flow.process.wait(rng.uniform(0.1, 0.7) * seconds)
        flow = inflict(str(kind), flow, refresh, output, rng)
    refresh.finish(flow)
    made = Dataset.of(output)
    made.check()
    assert made.shards == whole.shards
    assert made.index == whole.index
    assert made.ledger == whole.ledger


def inflict(
    kind: str, flow: FlowProcess, refresh: Refresh, output: Path, rng: np.random.Generator
) -> FlowProcess:
    """Kill something; the flow that goes on."""
    if flow.process.poll() is not None:
        return flow
    if kind == "node":
        refresh.cluster.lose_node(rng)
        HITS[kind] += 1
    elif kind == "worker":
        HITS[kind] += refresh.cluster.kill_worker(rng, flow)
    else:
        os.killpg(flow.process.pid, signal.SIGKILL)
        flow.end()
        HITS[kind] += 1
        flow = refresh.begin(output)
    return flow


def test_faults_were_felt() -> None:
    """Rounds in which nothing was hit would prove nothing."""
    if not HITS:
        pytest.skip("no round was run")
    assert min(HITS[kind] for kind in KINDS) >= 1, HITS
