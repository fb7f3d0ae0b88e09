import json
from pathlib import Path
from typing import Any

import pytest

from tasks.demo.truth_check import Truth, check_truth, read_truths


def row(path: str, **values: Any) -> dict[str, Any]:
    return {
        "path": path,
        "clip_id": path,
        "speaker": path[0],
        "shot": 0,
        "start_s": 0.0,
        "end_s": 3.0,
        "av_offset_frames": 0.0,
        "verdict": "accepted",
    } | values


TRUTHS: dict[str, Truth] = {
    "a/1.mp4": {"offset_frames": 3, "cuts_s": []},
    "b/1.mp4": {"offset_frames": 0, "cuts_s": [3.0]},
}


def test_offsets_and_cuts_are_measured_in_frames() -> None:
    rows = [
        row("a/1.mp4", av_offset_frames=3.6),
        row("b/1.mp4", av_offset_frames=-1.2),
        row("b/1.mp4", verdict="rejected", shot=1, start_s=3.04, end_s=6.0),
        row("unknown.mp4"),
    ]
    splits = {"a/1.mp4": "train", "b/1.mp4": "test"}
    found = check_truth(rows, TRUTHS, splits)
    assert found.offset_within_1 == 0.5
    assert found.offsets == ((3.0, 3.6), (0.0, -1.2))
    assert found.cut_error_frames_max == pytest.approx(1.0)
    assert found.cuts_invented == 0
    assert found.tracks_spanning_cuts == 0
    assert found.speakers_shared == ()


def test_faults_are_seen() -> None:
    rows = [
        row("b/1.mp4", start_s=0.5, end_s=5.0, speaker="a"),
        row("b/1.mp4", shot=1, start_s=1.0, end_s=2.0, verdict="rejected"),
        row("a/1.mp4"),
    ]
    splits = {"a/1.mp4": "train", "b/1.mp4": "test"}
    found = check_truth(rows, TRUTHS, splits)
    assert found.tracks_spanning_cuts == 1
    assert found.cut_error_frames_max == pytest.approx(50.0)
    assert found.cuts_invented == 1
    assert found.speakers_shared == ("a",)


def test_a_file_that_was_not_decoded_tells_nothing_of_cuts() -> None:
    found = check_truth([row("b/1.mp4", shot=-1, verdict="rejected")], TRUTHS, {})
    assert found.cut_error_frames_max is None
    assert found.cuts_invented == 0


def test_nothing_known_is_no_number() -> None:
    found = check_truth([row("x.mp4")], {}, {})
    assert found.offset_within_1 is None
    assert found.cut_error_frames_max is None


def test_truths_lie_beside_the_videos(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1.mp4").write_bytes(b"")
    (tmp_path / "s" / "2.mp4").write_bytes(b"")
    (tmp_path / "s" / "1.json").write_text(json.dumps({"cuts_s": []}))
    assert read_truths(tmp_path) == {"s/1.mp4": {"cuts_s": []}}
