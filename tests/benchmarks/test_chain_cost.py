"""The cost of chains and windows: passes are counted, not assumed, and failures are rows."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import chain_cost
from benchmarks.chain_cost import cost_of, line_of, measure
from models.latentsync.config import PoseConfig
from tests.support.small_models import small_model


def test_a_chain_makes_twelve_times_the_passes_of_windows() -> None:
    chain = small_model(num_frames=1, pose=PoseConfig(kind="full"))
    windows = small_model(num_frames=16)
    for shots in (1, 2):
        found = cost_of(chain, shots, 3, 2)
        assert found["passes"] == 3
        assert found["seconds"] > 0
        assert cost_of(windows, shots, 3, 2)["passes"] == pytest.approx(3 / 12)


def test_what_does_not_fit_is_a_row_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(model: object, shots: int, steps: int, frames: int) -> dict[str, float]:
        if shots == 32:
            raise torch.OutOfMemoryError
        return {"passes": 4.0, "seconds": 0.5, "memory_gb": 2.0}

    monkeypatch.setattr(chain_cost, "cost_of", found)
    monkeypatch.setattr(chain_cost, "LatentSync", lambda config: small_model())
    options = Namespace(shots=[1, 32], steps=4, frames=2)
    rows = measure(("syncdiff-tiny", "tiny"), torch.device("cpu"), options)
    assert [(each["kind"], each["shots"], each.get("failed")) for each in rows] == [
        ("chain", 1, None),
        ("chain", 32, "32 shots do not fit into the GPU"),
        ("windows", 1, None),
        ("windows", 32, "32 shots do not fit into the GPU"),
    ]
    assert capsys.readouterr().out.splitlines()[1:] == [line_of(each) for each in rows]


def test_the_last_line_is_for_the_gpu_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [{"kind": "chain", "recipe": "a", "shots": 1, "failed": "no"}]
    monkeypatch.setattr(chain_cost, "measure", lambda *_: rows)
    assert chain_cost.main(["--json", str(tmp_path / "c.json")]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"cost": rows}
    assert json.loads((tmp_path / "c.json").read_text())["rows"] == rows
