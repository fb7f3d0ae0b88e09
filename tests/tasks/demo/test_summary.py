import json
from pathlib import Path
from typing import Any

import pytest

from tasks.demo.summary import KEYS, as_text, build, write_summary
from tasks.registry.metric import metric


def parts() -> dict[str, Any]:
    content: dict[str, Any] = {name: dict.fromkeys(keys, 0.5) for name, keys in KEYS.items()}
    content["evaluation"] = {
        "fid": metric(1.5, "seeded", 10),
        "lmd": metric(1e400, "none", 0, "short"),
    }
    content["seconds"] = {"ingest": 80.0, "total": 400.0}
    content["registry"] = {
        "candidate": 2,
        "champion": 1,
        "decisions": [{"candidate": 2, "verdict": "refused", "reasons": ["worse " * 30]}],
    }
    content["syncnet"]["more"] = 3
    return content


def test_keys_are_those_that_were_promised_and_in_order(tmp_path: Path) -> None:
    summary = build(**parts())
    assert list(summary) == list(KEYS)
    assert "more" not in summary["syncnet"]
    write_summary(tmp_path / "summary.json", summary)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_a_missing_part_or_key_is_noticed() -> None:
    content = parts()
    del content["ingest"]["inputs"]
    with pytest.raises(ValueError, match="ingest does not have inputs"):
        build(**content)
    del content["ingest"]
    with pytest.raises(ValueError, match="a summary has the parts"):
        build(**content)


def test_the_text_has_numbers_reasons_and_paths() -> None:
    text = as_text(build(**parts()), {"no_face": 3}, [("report", "/out/report.html")])
    for piece in (
        "3  no_face",
        "fid",
        "1.500",
        "n 10",
        "seeded",
        "–",
        "(no value: short)",
        "version 2 refused",
    ):
        assert piece in text
    assert "/out/report.html" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_users_own_videos_have_no_truth() -> None:
    content = parts()
    content["ingest"]["offset_within_1"] = content["ingest"]["cut_error_frames_max"] = None
    assert "truth" not in as_text(build(**content), {}, [])
