"""The load of the machine is on the run, and a server that is away stops nothing."""

import threading
from pathlib import Path

import pytest
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from tasks.registry.system_metrics import system_metrics
from tasks.registry.tracking import RunTracker


def test_the_load_is_on_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
    monkeypatch.setattr("tasks.registry.system_metrics.PATIENCE_S", 300.0)
    published = threading.Event()
    publish = SystemMetricsMonitor.publish_metrics

    def and_say_so(monitor: SystemMetricsMonitor, metrics: dict[str, float]) -> None:
        publish(monitor, metrics)
        published.set()

    monkeypatch.setattr(SystemMetricsMonitor, "publish_metrics", and_say_so)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = RunTracker(uri, "m")
    with system_metrics(uri, tracker.start_run("train")):
        assert published.wait(300), "the monitor handed nothing on"
    names = {name for name, _ in tracker.points()}
    assert "system/cpu_utilization_percentage" in names
    assert "system/system_memory_usage_megabytes" in names


def test_a_store_that_is_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = []
    with system_metrics("http://127.0.0.1:1", "0" * 32):
        done.append(True)
    assert done
    with pytest.raises(KeyError), system_metrics("http://127.0.0.1:1", "0" * 32):
        raise KeyError
