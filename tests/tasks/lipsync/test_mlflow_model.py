from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.files.errors import ModelFileError
from tasks.lipsync.video import LipSyncResult
from tasks.registry.tracking import quiet
from tasks.weights.bundle import bundle_digest
from tests.support.fake_bundle import make_bundle

with quiet():
    from tasks.lipsync import mlflow_model
    from tasks.lipsync.mlflow_model import LipSyncModel


def context(folder: Path, digest: str) -> Any:
    return SimpleNamespace(
        artifacts={"bundle": str(folder)}, model_config={"bundle_digest": digest}
    )


def test_every_row_is_lip_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def lip_sync(*paths: Path, **options: Any) -> LipSyncResult:
        calls.append((*paths, options))
        return LipSyncResult(paths[2], 50, 48, 1.0, np.zeros(50))

    monkeypatch.setattr(mlflow_model, "lip_sync_video", lip_sync)
    bundle = make_bundle(tmp_path / "b")
    model = LipSyncModel()
    model.load_context(context(bundle, bundle_digest(bundle)))
    table = pd.DataFrame([{"video": "a.mp4", "audio": "a.wav", "output": "o.mp4", "more": 1}])
    result = model.predict(context(bundle, ""), table, {"steps": 4, "fps": 0.0})
    assert result.to_dict("records") == [
        {"video": "a.mp4", "audio": "a.wav", "output": "o.mp4", "frames": 50, "faces_found": 48}
    ]
    assert calls == [
        (Path("a.mp4"), Path("a.wav"), Path("o.mp4"), bundle, {"steps": 4, "fps": None})
    ]
    with pytest.raises(ValueError, match="are missing"):
        model.predict(context(bundle, ""), table[["video"]], None)


def test_other_files_than_registered_are_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    with pytest.raises(ModelFileError, match="not those that were registered"):
        LipSyncModel().load_context(context(bundle, "0" * 64))
