"""Training as a process of its own: interrupted three times, gone on, registered once."""

import json
import signal
from pathlib import Path

import pytest

from tasks.registry.tracking import client
from tasks.registry.versions import Registry
from tests.e2e.conftest import FlowProcess, RunFlow, StartFlow
from tests.support.talking_boxes import make_dataset

pytestmark = pytest.mark.e2e
ENDINGS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "ended by SIGTERM")}


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.timeout(900)
def test_training_goes_on_after_ctrl_c_sigterm_and_kill_9(
    start_flow: StartFlow, run_flow: RunFlow, tmp_path: Path
) -> None:
    dataset, output = make_dataset(tmp_path / "dataset"), tmp_path / "out"
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    arguments = [str(dataset), "--output", str(output), "--recipe", "debug"]
    arguments += ["--overrides", "syncnet.steps=40", "--overrides", "stage1.steps=200"]
    arguments += ["--tracking-uri", uri]

    def interrupt(stage: str, number: signal.Signals) -> FlowProcess:
        flow = start_flow("train_latentsync", *arguments)
        flow.wait_for((output / stage / "checkpoint.pt").exists)
        ended = flow.signal_group(number)
        assert flow.orphans() == []
        assert "Traceback" not in ended.err
        assert not (output / stage / "done.json").exists()
        if number != signal.SIGKILL:
            code, how = ENDINGS[number]
            assert ended.code == code, ended.out + ended.err
            assert f"{how}: run the same command again to go on" in ended.err
            assert "SIGTERM received" not in ended.out + ended.err
            assert statuses() == {"KILLED", "FINISHED"}
        return flow

    def statuses() -> set[str]:
        found = client(uri)
        experiment = found.get_experiment_by_name("latentsync")
        return {run.info.status for run in found.search_runs([experiment.experiment_id])}

    interrupt("syncnet", signal.SIGINT)
    interrupt("stage1", signal.SIGTERM)
    autoencoder = (output / "autoencoder" / "checkpoint.pt").stat().st_mtime_ns
    interrupt("stage1", signal.SIGKILL)
    ended = run_flow("train_latentsync", *arguments)
    assert ended.code == 0, ended.out + ended.err
    assert "stage1: going on from step" in ended.out
    assert (output / "autoencoder" / "checkpoint.pt").stat().st_mtime_ns == autoencoder
    for stage, count in (("syncnet", 40), ("stage1", 200)):
        assert steps(output / stage / "metrics.jsonl") == list(range(1, count + 1))
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))["result"]
    versions = Registry(uri).versions("latentsync")
    assert [each.version for each in versions] == [result["model_version"]] == [1]
    assert versions[0].run_id == result["run_id"]
    assert versions[0].aliases == ("candidate",)
    # What kill -9 left running was closed, and no point of a curve is missing or there twice.
    assert statuses() == {"FINISHED"}
    runs = json.loads((output / "run.json").read_text(encoding="utf-8"))["stages"]
    for stage in ("syncnet", "stage1"):
        history = client(uri).get_metric_history(runs[stage], "loss")
        assert sorted(point.step for point in history) == steps(output / stage / "metrics.jsonl")
    again = run_flow("train_latentsync", *arguments)
    assert again.code == 0, again.err
    assert "nothing has changed" in again.out
    assert [each.version for each in Registry(uri).versions("latentsync")] == [1]
