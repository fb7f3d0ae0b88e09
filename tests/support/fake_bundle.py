"""A bundle that has the form of one but no networks, and a store, for tests of the registry."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.registry.metric import Evaluation, Measured, Metric
from tasks.registry.tracking import RunTracker, default_uri
from tasks.registry.versions import register

ABOUT = {
    "recipe": "debug",
    "resolution": 64,
    "dataset_digest": "d" * 64,
    "mask": "latentsync-nose-notch",
    "crop": "latentsync-1.5",
    "reference": "frame",
    "audio": "mel",
    "code_version": 1,
}

CONFIG = {name: ABOUT[name] for name in ("resolution", "audio", "mask", "crop", "reference")}


def make_bundle(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(json.dumps(ABOUT))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "weights.bin").write_bytes(content)
    return folder


def registered(uri: str, name: str, folder: Path, content: bytes) -> int:
    """A new version of a model with a run of its own."""
    tracker = RunTracker(uri, name)
    run_id = tracker.start_run("train")
    tracker.end_run()
    return register(make_bundle(folder, content), name, uri, run_id)


def evaluation(**metrics: float) -> Measured:
    """What decides of an evaluation with these numbers."""
    return {
        "protocol_digest": "same" * 8,
        "metrics": {
            name: {"value": value, "label": "test", "n": 4} for name, value in metrics.items()
        },
    }


def whole_evaluation(metrics: dict[str, Metric], **others: Any) -> Evaluation:
    """Content of an `evaluation.json` with these numbers."""
    content: Evaluation = {
        "protocol_digest": "same" * 8,
        "model_digest": "m" * 64,
        "metrics": metrics,
        "split": "test",
        "warnings": [],
        "clips": ["a"],
        "config": {},
        "device": "cpu",
        "bf16": False,
        "mask": "latentsync-nose-notch",
        "crop": "latentsync-1.5",
        "reference": "frame",
        "seconds": 1.0,
    }
    return cast(Evaluation, content | others)


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all tests of the session: making its tables takes seconds."""
    folder = tmp_path_factory.getbasetemp() / "mlflow-store"
    folder.mkdir(exist_ok=True)
    return default_uri(folder)
