from pathlib import Path
from typing import Any

import pytest

from flows import evaluate_latentsync as module
from tasks.metrics import metric


def test_the_flow_ends_with_numbers_and_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = {
        "metrics": {"fid": metric(12.0, "seeded", 40)},
        "clips": ["a", "b"],
        "split": "train",
        "warnings": ["no speaker is held out"],
    }
    monkeypatch.setattr(module, "find", lambda *_: None)
    monkeypatch.setattr(module, "resolve", lambda *_: tmp_path)
    monkeypatch.setattr(module, "local_copy", Path)
    monkeypatch.setattr(module, "generate_and_measure", lambda *_: content)
    monkeypatch.setattr(module, "log_results", lambda *_: "run")
    result = module.evaluate_latentsync.fn(
        model=str(tmp_path), output=str(tmp_path), tracking_uri=f"sqlite:///{tmp_path}/m.db"
    )
    assert result["run_id"] == "run"
    printed = capsys.readouterr().out
    for text in ("2 TRAINING clips", "12.00  40 frames  seeded", "beware: no speaker is held out"):
        assert text in printed
    for name in ("evaluation.json", "plots.png", "contact_sheet.png"):
        assert str(tmp_path / name) in printed
