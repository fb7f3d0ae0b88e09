"""The card's numbers are those of the rows, whatever order they come in."""

from pathlib import Path

import pandas as pd
import pytest

from datasets.media import FPS
from datasets.shards.records import ClipRow
from tasks.publish.card import (
    NOT_STATED,
    Change,
    ReasonLine,
    SpeakerLine,
    SplitLine,
    data_card,
    hours,
)
from tests.support.card_rows import make_index, make_rows


def clip(number: int, **values: object) -> dict[str, object]:
    row = ClipRow(
        path=f"{number}.mp4",
        clip_id=f"clip-{number}",
        speaker="anna",
        num_frames=100,
        scorer="mouth-audio",
        verdict="accepted",
    )
    return vars(row) | {"split": "train"} | values


ROWS = [
    clip(0),
    clip(1, speaker="bert", num_frames=250, split="test"),
    clip(1, clip_id="clip-1b"),
    clip(2, verdict="rejected", reason="blurry", stage="verdict", split=""),
    clip(3, verdict="rejected", reason="blurry", stage="verdict", num_frames=50, split=""),
    clip(4, verdict="rejected", reason="silent", stage="audio", clip_id="", split=""),
]
INDEX = {
    "digest": "abc",
    "resolution": 256,
    "fps": 25,
    "sample_rate": 16000,
    "counts": {"test": 1, "train": 2},
    "shards": [
        {"name": "test-0", "split": "test", "samples": 1, "bytes": 10},
        {"name": "train-0", "split": "train", "samples": 1, "bytes": 20},
        {"name": "train-1", "split": "train", "samples": 1, "bytes": 30},
    ],
}


def test_everything_is_counted() -> None:
    card = data_card(ROWS, INDEX)
    assert (card.inputs, card.clips_found, card.clips_accepted) == (5, 5, 3)
    assert (card.frames_accepted, card.speakers, card.shared_speakers) == (450, 2, 0)
    assert card.splits == (
        SplitLine("test", 1, 250, 1, 1, 10),
        SplitLine("train", 2, 200, 1, 2, 50),
        SplitLine("all", 3, 450, 2, 3, 60),
    )
    assert card.reasons == (
        ReasonLine("blurry", "verdict", 2, 150),
        ReasonLine("silent", "audio", 1, 100),
    )
    assert card.top_speakers == (SpeakerLine("bert", 1, 250), SpeakerLine("anna", 2, 200))
    assert card.facts["scorer of the offset"] == "mouth-audio"
    assert hours(3600 * round(FPS)) == 1.0


def test_rows_without_a_split_leave_its_hours_open() -> None:
    rows = [{name: row[name] for name in row if name != "split"} for row in ROWS]
    card = data_card(rows, INDEX)
    assert card.shared_speakers is None
    assert card.splits[:2] == (
        SplitLine("test", 1, None, None, 1, 10),
        SplitLine("train", 2, None, None, 2, 50),
    )
    assert card.splits[2] == SplitLine("all", 3, 450, 2, 3, 60)


def test_a_speaker_in_two_splits_is_noticed() -> None:
    assert data_card([*ROWS, clip(9, split="test")], INDEX).shared_speakers == 1


def test_rows_in_any_order_and_from_the_ledger_give_the_same_card(tmp_path: Path) -> None:
    rows = make_rows(400)
    index = make_index(rows)
    card = data_card(rows, index)
    assert data_card(rows[::-1], index) == card
    pd.DataFrame(rows).to_parquet(tmp_path / "ledger.parquet")
    assert data_card(pd.read_parquet(tmp_path / "ledger.parquet"), index) == card
    assert sum(line.rows for line in card.reasons) + card.clips_accepted == 400
    assert sum(line.clips for line in card.splits[:-1]) == card.clips_accepted


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_nothing_is_a_card_too(count: int) -> None:
    refused = [row for row in ROWS if row["verdict"] == "rejected"][:count]
    card = data_card(refused, INDEX | {"counts": {}, "shards": []})
    assert (card.clips_accepted, card.speakers, card.top_speakers) == (0, 0, ())
    assert [line.name for line in card.splits] == ["all"]
    assert len(card.reasons) == count


def test_some_names_may_come_with_a_number() -> None:
    changes = {"previous": "old", "forgotten": 40, "names": {"forgotten": ["b", "a"], "new": []}}
    card = data_card(ROWS, INDEX, changes)
    what = "input files that are gone from the source, dropped with their clips"
    assert card.changes == (Change(what, 40, ("a", "b")),)


def test_changes_are_counted_and_the_first_files_named() -> None:
    new = [f"{number:02d}.mp4" for number in reversed(range(30))]
    relabelled = {"clips newly accepted": 4, "clips newly refused": 0}
    changes = {"previous": "old", "new": new, "changed": 0, "gone": 2, "relabelled": relabelled}
    card = data_card(ROWS, INDEX, changes)
    assert card.previous == "old"
    assert card.changes == (
        Change("new input files", 30, tuple(sorted(new)[:20])),
        Change("input files that are gone from the source, their clips kept", 2),
        Change("clips newly accepted", 4),
    )
    with pytest.raises(ValueError, match="removed"):
        data_card(ROWS, INDEX, {"removed": 3})


def test_sources_and_thresholds_are_told() -> None:
    index = INDEX | {"source": ["voxceleb2", "mine"], "thresholds": {"b": 0.5, "a": {"y": 3.0}}}
    card = data_card(ROWS, index)
    assert card.sources[0] == ("mine", NOT_STATED)
    assert "VoxCeleb2" in card.sources[1][1]
    assert card.thresholds == {"a": "y: 3", "b": "0.5"}
