"""HDTF as a source: every video and interval comes out, people stay together."""

from collections import Counter
from pathlib import Path

import pytest

from datasets.errors import Reason
from datasets.shards.splits import assign_splits
from datasets.sources.hdtf import list_hdtf
from datasets.sources.items import How


@pytest.mark.real
def test_counts_of_the_real_lists(shared: Path) -> None:
    items = list_hdtf(shared / "hdtf")
    assert len(items) == len({item.key for item in items}) == 370
    assert {item.how for item in items} == {How.PAGE}
    assert len({item.location for item in items}) == 369
    parts = [(item, part) for item in items for part in item.parts]
    assert len(parts) == 436
    used = [(item, part) for item, part in parts if not part.reason]
    assert len(used) == 421
    assert all(part.region for _, part in used)
    assert Counter(item.key.split("_")[0] for item, _ in used) == {"RD": 64, "WDA": 189, "WRA": 168}
    assert sum(item.wanted for item in items) == 356
    assert sum(item.expected_seconds for item in items) / 3600 == pytest.approx(16.35, abs=0.005)
    assert [item.key for item in items if item.reason] == ["RD_Radio24"]
    refused = [part for _, part in parts if part.reason]
    assert {part.reason for part in refused} == {Reason.NOT_ANNOTATED}
    assert all(part.region is None for part in refused)


@pytest.mark.real
def test_names_of_clips_are_those_in_the_wild(shared: Path) -> None:
    items = {item.key: item for item in list_hdtf(shared / "hdtf")}
    item = items["WDA_AlexandriaOcasioCortez"]
    assert f"{item.key}_{item.parts[0].name}" == "WDA_AlexandriaOcasioCortez_000"
    # The start time in the list's address is not part of the video.
    assert items["RD_Radio2"].location == "https://www.youtube.com/watch?v=uBWJJvynXpA"


@pytest.mark.real
def test_no_person_is_on_both_sides(shared: Path) -> None:
    items = {item.key: item for item in list_hdtf(shared / "hdtf")}
    assert {items[f"WRA_JohnKasich{number}"].speaker for number in range(4)} == {"JohnKasich"}
    same_video = {items["WDA_WhipJimClyburn"].speaker, items["WDA_JamesClyburn1"].speaker}
    assert same_video == {items["WDA_JamesClyburn"].speaker} == {"JamesClyburn"}
    assert {item.speaker for key, item in items.items() if key.startswith("RD_")} == {"Radio"}
    assert len({item.speaker for item in items.values()}) == 220
    sides = assign_splits((item.speaker for item in items.values()), 0.2)
    videos: dict[str, set[str]] = {}
    for item in items.values():
        videos.setdefault(item.location, set()).add(sides[item.speaker])
    assert all(len(found) == 1 for found in videos.values())


def test_a_video_with_one_bad_interval_is_still_wanted(tmp_path: Path) -> None:
    lists = {
        "video_url": "A1 https://www.youtube.com/watch?v=a&t=5s\nB https://youtube.com/watch?v=b\n",
        "resolution": "A1.mp4 720\nB.mp4 720\n",
        "annotion_time": "A1.mp4 00:00-00:10 01:00-01:20\n",
        "crop_wh": "A1_1.mp4 10 100 20 100\n",
        "crop_ratio": "",
    }
    for kind, text in lists.items():
        (tmp_path / f"WDA_{kind}.txt").write_text(text)
    first, second = list_hdtf(tmp_path)
    assert (first.wanted, first.expected_seconds, first.speaker) == (True, 20.0, "A")
    assert [part.reason for part in first.parts] == [Reason.NOT_ANNOTATED, Reason.NONE]
    assert (second.wanted, second.reason) == (False, Reason.NOT_ANNOTATED)
