import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from datasets.errors import UserError
from tasks.evaluate.measurement import (
    ClipRecord,
    Labels,
    Measurement,
    SetLabel,
    read_record,
    write_record,
)
from tasks.evaluate.table import read_measurements, read_speakers, write_measurements

LABELS = Labels("judge", "judge", "lpips", "mouth", "", {"fid": SetLabel("mean", 2)})


def record(clip: str, speaker: str, value: float) -> ClipRecord:
    real = {"fid": np.arange(4.0).reshape(2, 2)}
    models = {
        name: Measurement(
            {"ssim": value + shift, "psnr_db": math.inf},
            {"psnr_db": "the pictures are equal"},
            {"cross": [1 / 3, math.nan]},
            {"fid": np.full((2, 2), value + shift)},
            real,
        )
        for name, shift in (("model", 0.0), ("still", 0.5))
    }
    sheet = {"input": np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)}
    return ClipRecord(clip, speaker, LABELS, models, sheet, True)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "000.npz"
    write_record(path, record("a", "s", 1 / 3))
    found = read_record(path)
    assert found is not None
    assert (found.clip_id, found.speaker, found.labels, found.bf16) == ("a", "s", LABELS, True)
    assert list(found.models) == ["model", "still"]
    for name, shift in (("model", 0.0), ("still", 0.5)):
        each = found.models[name]
        assert each.values == {"ssim": 1 / 3 + shift, "psnr_db": math.inf}
        assert each.reasons == {"psnr_db": "the pictures are equal"}
        assert each.distances["cross"][0] == 1 / 3
        assert math.isnan(each.distances["cross"][1])
        assert (each.fake["fid"] == 1 / 3 + shift).all()
        assert np.array_equal(each.real["fid"], [[0, 1], [2, 3]])
    assert found.sheet["input"].dtype == np.uint8
    assert read_record(tmp_path / "001.npz") is None
    path.write_bytes(path.read_bytes()[:-30])
    assert read_record(path) is None


def test_the_table_has_a_row_per_clip_model_and_metric(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    records = [record("b", "s", 0.25), record("a", "t", 0.75)]
    facts = {"a": {"yaw_deg": 12.5, "language": "en"}}
    write_measurements(path, records, facts)
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert [(row["clip_id"], row["model"], row["metric"]) for row in rows] == [
        (clip, model, metric)
        for clip in ("b", "a")
        for model in ("model", "still")
        for metric in ("ssim", "psnr_db")
    ]
    assert rows[1]["value"] is None
    assert rows[1]["reason"] == "the pictures are equal"
    assert [row["yaw_deg"] for row in rows] == [None] * 4 + [12.5] * 4
    assert {row["language"] for row in rows[4:]} == {"en"}
    assert read_speakers(path) == {"b": "s", "a": "t"}
    found = read_measurements(path, "still")
    assert list(found) == ["b", "a"]
    assert found["a"]["ssim"] == 1.25
    assert math.isnan(found["a"]["psnr_db"])
    again = tmp_path / "again.parquet"
    write_measurements(again, records, facts)
    assert again.read_bytes() == path.read_bytes()


def test_another_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for name in ("file", "absent"):
        with pytest.raises(UserError, match="is not the table of an evaluation"):
            read_measurements(tmp_path / name)
