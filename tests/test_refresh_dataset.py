"""What the refresh refuses before it begins, and how it publishes what was ingested."""

from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from datasets.errors import Reason, UserError
from datasets.records import ClipRow
from datasets.sources import SourceItem, list_folder
from flows import refresh_dataset as module
from flows.refresh_dataset import Refresh, publish, refresh_dataset
from tasks.dataset_pack import PackConfig
from tasks.executor import Outcome
from tasks.ingest import IngestConfig
from tasks.verdicts import Thresholds


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"source": "tape"}, "no source 'tape': choose sample or folder"),
        ({"source": "folder"}, "needs --input"),
        ({"source": "sample", "input": "x"}, "--input x is for --source folder"),
        ({"resolution": 100}, "multiple of 8"),
        ({"scorer": "magic"}, "no offset scorer is called magic"),
        ({"test_fraction": 1.5}, "test fraction of 1.5"),
        ({"deadline_s": 0.0}, "deadline of 0 s"),
        ({"sample_clips": 0}, "sample of 0"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    tmp_path: Path, parameters: dict[str, Any], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        refresh_dataset.fn(output=str(tmp_path / "out"), **parameters)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for name in ("ann/a.mp4", "bob/b.mp4", "bob/c.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def make_refresh(output: Path, min_confidence: float = 3.0) -> Refresh:
    thresholds = Thresholds(min_confidence=min_confidence)
    return Refresh(output, IngestConfig(), thresholds, PackConfig(256), None, None, 60.0)


def pretend_ingest(refresh: Refresh, items: list[SourceItem]) -> None:
    """Each file gives one clip, of confidence 4 to 6, except c.mp4, which is silent."""
    journal = refresh.journal()
    for number, item in enumerate(items):
        journal.begin(item)
        if item.key.endswith("c.mp4"):
            journal.finish(item, Outcome(item.key, None, Reason.SILENT, "quiet", 1, 0.1))
            continue
        row = ClipRow(item.relative, f"clip-{number}", speaker=item.speaker, num_frames=50)
        row.face_px = row.sharpness = row.brightness = 100.0
        row.coverage, row.yaw_deg, row.av_offset_frames = 1.0, 0.0, 2.0
        row.sync_confidence = 4.0 + number
        files = {kind: f"{number}/x.{kind}" for kind in ("mp4", "flac", "npy", "json")}
        for name in files.values():
            (journal.clips / name).parent.mkdir(parents=True, exist_ok=True)
            (journal.clips / name).write_bytes(name.encode())
        clips = [{"clip_id": row.clip_id, "files": files}]
        value = {"digest": "", "rows": [row.as_dict()], "clips": clips, "video_seconds": 2.0}
        journal.finish(item, Outcome(item.key, value, Reason.NONE, "", 1, 0.1))


def test_published_counts_and_rows(tmp_path: Path, videos: Path) -> None:
    refresh, items = make_refresh(tmp_path / "out"), list_folder(videos)
    pretend_ingest(refresh, items)
    result = publish.fn(items, refresh)
    assert result["inputs"] == 3
    assert (result["clips_accepted"], result["clips_rejected"]) == (2, 1)
    assert result["reasons"] == {"silent": 1}
    table = pyarrow.parquet.read_table(tmp_path / "out" / "ledger.parquet")
    assert table["path"].to_pylist() == ["ann/a.mp4", "bob/b.mp4", "bob/c.mp4"]
    assert table["verdict"].to_pylist() == ["accepted", "accepted", "rejected"]


def test_the_dataset_follows_thresholds_and_its_source(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    refresh, items = make_refresh(out), list_folder(videos)
    pretend_ingest(refresh, items)
    first = publish.fn(items, refresh)
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert publish.fn(items, refresh) == first
    assert "nothing has changed" in capsys.readouterr().out
    assert files == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    stricter = publish.fn(items, make_refresh(out, min_confidence=4.5))
    assert (stricter["clips_accepted"], stricter["reasons"]["low_confidence"]) == (1, 1)
    (videos / "ann/a.mp4").unlink()
    smaller = publish.fn(list_folder(videos), refresh)
    assert (smaller["inputs"], smaller["clips_accepted"]) == (2, 1)
    assert "1 files are gone from the source" in capsys.readouterr().out
    # The shards are the same in both cases, so it is the same dataset to train on.
    assert first["digest"] != stricter["digest"] == smaller["digest"]


def test_no_clip_at_all_is_a_mistake_with_its_reasons(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "show_table", lambda *_: None)
    counts = {"not_media": 9, "silent": 3, "no_face": 2, "unreadable": 1, "too_short": 1}
    result = {
        "dataset": str(tmp_path),
        "inputs": 16,
        "clips_accepted": 0,
        "clips_rejected": 16,
        "reasons": counts,
    }
    text = r"from 16 files \(9 not_media, 3 silent, 2 no_face, 1 unreadable, 1 others\)"
    with pytest.raises(UserError, match=text):
        module._conclude(result)
