"""A training on a real Ray cluster of which a node comes and goes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.recipes.recipe import recipe
from tasks.train.curves import METRICS
from tasks.train.ray_group import train_with_ray
from tasks.train.stages import TrainingJob, remaining
from tests.e2e.test_cluster_faults import QUICK_TO_NOTICE
from tests.support.talking_boxes import make_dataset

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """One node, which has room for one worker."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_LOG_TO_STDERR"] = "0"
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE}
    made: Any = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


@pytest.mark.long
def test_a_node_that_comes_is_used_and_one_that_goes_is_missed(
    cluster: Any, tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "d")
    steps = {
        "syncnet.steps": "300", "syncnet.batch_size": "16", "syncnet.test_every": "0",
        "syncnet.checkpoint_every": "300",
    }  # fmt: skip
    job = TrainingJob(dataset, tmp_path / "out", recipe("debug", steps), stages=("syncnet",))
    lines: list[str] = []
    nodes: list[Any] = []

    def watch(line: str) -> None:
        lines.append(line)
        if not nodes and line.startswith("syncnet  "):
            nodes.append(cluster.add_node(num_cpus=1))
        if len(nodes) == 1 and line.startswith("syncnet: going on from step"):
            cluster.remove_node(nodes[0], allow_graceful=False)
            nodes.append(None)

    train_with_ray(job, workers=2, min_workers=1, ray_address=cluster.address, on_line=watch)
    assert remaining(job) == []
    said = [line.partition(":")[0] for line in lines if not line.startswith("syncnet  ")]
    assert said[0] == "1 of 2 training workers"
    came = said.index("there is room for 1 more")
    assert said[came + 1] == "syncnet"
    lost = next(place for place, line in enumerate(said) if line.endswith("was lost"))
    assert came < lost < max(place for place, line in enumerate(said) if line == said[0])
    # No step was lost when the node came: none was due.
    first = next(line for line in lines if line.startswith("syncnet: going on from step "))
    assert int(first.split()[-1]) > 0
    assert len((job.output / "syncnet" / METRICS).read_text().splitlines()) == 300
