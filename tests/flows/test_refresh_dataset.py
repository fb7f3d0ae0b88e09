"""What the refresh refuses before it begins, and how it publishes what was ingested."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from datasets.errors import Reason, UserError
from datasets.faces.alignment import CROP
from datasets.fetch.policy import DownloadSettings
from datasets.shards.index import read_index, read_samples
from datasets.shards.records import ClipRow
from datasets.sources.items import SourceItem, list_folder
from datasets.store.local import LocalStore
from flows import refresh_dataset as refresh_module
from flows import relabel_dataset as relabel_module
from flows.refresh_dataset import Refresh, RefreshResult, Told, publish, refresh_dataset
from flows.relabel_dataset import relabel_dataset
from flows.support import refresh_text as module
from flows.support.parcel import Parcel
from models.latentsync.config import MASK
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import Crew
from tasks.ingest.verdicts import Thresholds
from tasks.publish.pack import PackConfig
from tasks.publish.settings import Settings
from tasks.publish.version import VersionSummary
from tests.support.finished_groups import clip_row, finish_group


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"source": "tape"}, "no source 'tape': choose one of sample, folder"),
        ({"source": "folder"}, "needs --input"),
        ({"source": "sample", "input": "x"}, "--input x is given, but"),
        ({"downloads": 0}, "connections of downloads must be above 0"),
        ({"resolution": 100}, "multiple of 8"),
        ({"face_choice": "both"}, "no face choice 'both': choose in-sync or largest"),
        ({"gpu_share": 2.0}, "the GPU share must be above 0 and at most 1, got 2"),
        ({"scorer": "magic"}, "no offset scorer 'magic'"),
        ({"test_fraction": 1.5}, "test fraction of 1.5"),
        ({"deadline_s": 0.0}, "the deadline must be more than 0 s, got 0 s"),
        ({"sample_clips": 0}, "a sample of 0"),
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


def make_refresh(output: Path, min_confidence: float = 3.0, **options: Any) -> Refresh:
    thresholds = Thresholds(min_confidence=min_confidence)
    store, crew = LocalStore(output), Crew(deadline_s=60.0)
    return Refresh(
        "folder",
        "",
        store,
        output,
        Settings(IngestConfig(), thresholds, PackConfig(256)),
        crew,
        "cpu",
        0.25,
        DownloadSettings(),
        **options,
    )


def pretend_ingest(refresh: Refresh, items: list[SourceItem]) -> Told:
    """Each file gives one clip, of confidence 4 to 6, except c.mp4, which is silent, and files
    without bytes. A file that begins with "half" is cut off."""
    journal = refresh.journal()
    changes = journal.changes(items)
    for group in journal.plan(changes.todo):
        rows = {
            item.key: [clip_row(item, confidence=4.0 + items.index(item))]
            if item.expected_bytes
            else [ClipRow(item.relative, reason=Reason.EMPTY_FILE.value)]
            for item in group.items
        }
        half = [item for item in group.items if item.path.read_bytes().startswith(b"half")]
        whole = {item.key for item in half if journal.had_whole(item)}
        rows |= {key: [ClipRow(key, reason=Reason.UNREADABLE.value, detail="cut")] for key in whole}
        notes = {item.key: "ends at 1.0 s of 9.0 s" for item in half}
        silent = {item.key: Reason.SILENT for item in group.items if item.key.endswith("c.mp4")}
        heard = {"bob/b.mp4": "audio stream 2 of 2 is heard"}
        finish_group(journal, group, rows, silent, notes=notes, heard=heard)
    return {"changes": changes.counts(), "first_names": changes.first_names(20)}


def issue(refresh: Refresh, items: list[SourceItem]) -> RefreshResult:
    return publish.fn(Parcel(items), refresh, pretend_ingest(refresh, items))


def clips_of(out: Path) -> set[str]:
    """Names of the clips in the shards."""
    store = LocalStore(out)
    return {
        key
        for entry in read_index(out)["shards"]
        for key, _ in read_samples(store, f"shards/{entry['name']}")
    }


def test_published_counts_and_rows(tmp_path: Path, videos: Path) -> None:
    result = issue(make_refresh(tmp_path / "out"), list_folder(videos))
    assert result["inputs"] == 3
    assert (result["clips_accepted"], result["clips_rejected"]) == (2, 1)
    assert result["reasons"] == {"silent": 1}
    assert result["changes"] == {"new": 3, "changed": 0, "again": 0, "kept": 0, "gone": 0}
    table = pyarrow.parquet.read_table(tmp_path / "out" / "ledger.parquet")
    assert table["path"].to_pylist() == ["ann/a.mp4", "bob/b.mp4", "bob/c.mp4"]
    assert table["verdict"].to_pylist() == ["accepted", "accepted", "rejected"]
    heard = [row.endswith("audio stream 2 of 2 is heard") for row in table["detail"].to_pylist()]
    assert heard == [False, True, False], "which sound was taken is recorded"


def test_a_refresh_adds_and_removes_nothing(
    tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refresh = make_refresh(tmp_path / "out")
    first = issue(refresh, list_folder(videos))
    clips = clips_of(tmp_path / "out")
    assert issue(refresh, list_folder(videos))["digest"] == first["digest"]
    assert "nothing has changed" in capsys.readouterr().out
    (videos / "ann/a.mp4").unlink()
    (videos / "dan").mkdir()
    (videos / "dan/d.mp4").write_bytes(b"new")
    second = issue(refresh, list_folder(videos))
    assert (second["inputs"], second["clips_accepted"]) == (4, 3)
    assert second["digest"] != first["digest"]
    assert "files: 1 new, 2 as before, 1 gone but kept" in capsys.readouterr().out
    assert clips < clips_of(tmp_path / "out")
    smaller = issue(make_refresh(tmp_path / "out", forget_missing=True), list_folder(videos))
    assert (smaller["inputs"], smaller["clips_accepted"]) == (3, 2)
    assert "1 gone from the source and from the dataset" in capsys.readouterr().out
    assert issue(refresh, list_folder(videos))["digest"] == smaller["digest"]


def test_the_card_names_what_is_new_changed_and_dropped(tmp_path: Path, videos: Path) -> None:
    def card() -> str:
        return (tmp_path / "out/card/README.md").read_text()

    issue(make_refresh(tmp_path / "out"), list_folder(videos))
    assert "| new input files | 3 | ann/a.mp4, bob/b.mp4, bob/c.mp4 |" in card()
    (videos / "bob/b.mp4").write_bytes(b"another take")
    for path in [videos / "ann/a.mp4", videos / "bob/c.mp4"]:
        path.rename(tmp_path / path.name)
    issue(make_refresh(tmp_path / "out"), list_folder(videos))
    assert "| changed input files | 1 | bob/b.mp4 |" in card()
    gone = "input files that are gone from the source"
    assert f"| {gone}, their clips kept | 2 | ann/a.mp4, bob/c.mp4 |" in card()
    issue(make_refresh(tmp_path / "out", forget_missing=True), list_folder(videos))
    assert f"| {gone}, dropped with their clips | 2 | ann/a.mp4, bob/c.mp4 |" in card()
    assert "their clips kept" not in card()


def test_a_changed_file_replaces_its_clips(tmp_path: Path, videos: Path) -> None:
    refresh = make_refresh(tmp_path / "out")
    first = issue(refresh, list_folder(videos))
    (videos / "ann/a.mp4").write_bytes(b"another take")
    second = issue(refresh, list_folder(videos))
    assert second["changes"]["changed"] == 1
    assert (second["inputs"], second["clips_accepted"]) == (3, 2)
    assert second["digest"] != first["digest"]


def test_relabelling(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[Any] = []
    monkeypatch.setattr(relabel_module, "show_table", lambda *table: tables.append(table))
    refresh = make_refresh(tmp_path / "out")
    first = issue(refresh, list_folder(videos))
    result = relabel_dataset.fn(str(tmp_path / "out"), min_confidence=4.5)
    assert (result["newly_accepted"], result["newly_refused"]) == (0, 1)
    assert (result["clips_accepted"], result["reasons"]["low_confidence"]) == (1, 1)
    assert tables
    again = relabel_dataset.fn(str(tmp_path / "out"), min_confidence=3.0)
    assert (again["newly_accepted"], again["digest"]) == (1, first["digest"])
    with pytest.raises(UserError, match="no threshold is given"):
        relabel_dataset.fn(str(tmp_path / "out"))
    with pytest.raises(UserError, match="no dataset"):
        relabel_dataset.fn(str(tmp_path / "none"), min_confidence=3.0)
    shutil.rmtree(tmp_path / "out/staging")
    with pytest.raises(UserError, match="lacks 2 clips"):
        relabel_dataset.fn(str(tmp_path / "out"), min_confidence=5.0)


@pytest.fixture
def run(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """The flow over the videos, without Prefect and with `pretend_ingest`."""

    def run_ingest(items: list[SourceItem], changes: Any, journal: Any, refresh: Refresh) -> None:
        pretend_ingest(refresh, items)

    monkeypatch.setattr(refresh_module, "list_sources", refresh_module.list_sources.fn)
    monkeypatch.setattr(refresh_module, "ingest", refresh_module.ingest.fn)
    monkeypatch.setattr(refresh_module, "_run_ingest", run_ingest)
    monkeypatch.setattr(refresh_module, "ray_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr(refresh_module, "publish", publish.fn)
    for each in (module, relabel_module):
        monkeypatch.setattr(each, "show_table", lambda *_: None)

    def refresh(**parameters: Any) -> dict[str, Any]:
        given = {"source": "folder", "input": str(videos), "output": str(tmp_path / "out")}
        return dict(refresh_dataset.fn(**given | parameters))

    return refresh


def test_a_scheduled_refresh_keeps_what_relabelling_decided(
    tmp_path: Path, run: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(test_fraction=0.3)["clips_accepted"] == 2
    relabelled = relabel_dataset.fn(str(tmp_path / "out"), min_confidence=4.5)
    assert run()["digest"] == relabelled["digest"]
    assert "nothing has changed" in capsys.readouterr().out
    assert run(min_confidence=3.5, max_yaw_deg=40.0)["clips_accepted"] == 2
    told = capsys.readouterr().out
    assert "thresholds change: min_confidence 4.5 -> 3.5, max_yaw_deg 55.0 -> 40.0" in told
    with pytest.raises(UserError, match="no clip would be left"):
        run(min_confidence=450.0)
    assert run()["clips_accepted"] == 2


def as_before_the_crop(out: Path) -> None:
    """A dataset as earlier releases left it: no crop is named, clips lie under another key."""
    for name, entry in (("index.json", None), ("refresh.json", "ingest")):
        content = json.loads((out / name).read_text())
        for field in ("crop", "mask"):
            (content[entry] if entry else content).pop(field, None)
        if entry:
            # Of the same rows, but of files that were put together otherwise.
            content["fingerprint"] = "before"
        (out / name).write_text(json.dumps(content))
    for folder in (out / "staging").glob("[0-9a-f]*"):
        folder.rename(folder.with_name("0" * 12))


def test_a_dataset_of_the_crop_of_before_is_ingested_anew(
    tmp_path: Path, run: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    out = tmp_path / "out"
    assert (read_index(out)["crop"], read_index(out)["mask"]) == (CROP, MASK)
    as_before_the_crop(out)
    with pytest.raises(UserError, match=r"former, larger crop.*refresh it"):
        relabel_dataset.fn(str(out), min_confidence=4.5)
    capsys.readouterr()
    assert run()["clips_accepted"] == 2
    told = capsys.readouterr().out
    assert told.count("again, since the published version has the former, larger crop") == 1
    assert "3 of 3 files are ingested again" in told
    assert read_index(out)["crop"] == CROP
    assert run()["clips_accepted"] == 2
    assert "ingested again" not in capsys.readouterr().out


def test_clips_of_the_crop_of_before_are_not_lost_with_their_files(
    tmp_path: Path, run: Callable[..., dict[str, Any]], videos: Path
) -> None:
    run()
    as_before_the_crop(tmp_path / "out")
    (videos / "ann/a.mp4").unlink()
    with pytest.raises(UserError, match=r"1 files with clips in .*, such as ann/a.mp4, are no"):
        run()
    assert run(forget_missing=True)["clips_accepted"] == 1


def test_another_configuration_does_not_drop_what_has_gone_from_the_source(
    tmp_path: Path, run: Callable[..., dict[str, Any]], videos: Path
) -> None:
    first = run()
    (videos / "ann/a.mp4").unlink()
    assert run()["digest"] == first["digest"]
    with pytest.raises(UserError, match=r"1 files with clips in .*, such as ann/a.mp4, are no"):
        run(resolution=128)
    assert read_index(tmp_path / "out")["digest"] == first["digest"]
    assert run(resolution=128, forget_missing=True)["clips_accepted"] == 1


def test_what_failed_is_tried_again_when_asked(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    made: list[Any] = []
    original = refresh_module.Journal

    def watched(*arguments: Any) -> Any:
        made.append(arguments[2:])
        return original(*arguments)

    monkeypatch.setattr(refresh_module, "Journal", watched)
    run(retry_failed=True, deadline_s=7.0, download_deadline_s=9.0)
    assert set(made) == {(7.0, 9.0, True)}


def test_files_that_cannot_be_used_now_are_named(
    run: Callable[..., dict[str, Any]], videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run()
    (videos / "ann/a.mp4").write_bytes(b"")
    second = run()
    assert second["digest"] == first["digest"]
    assert "stay as they were: ann/a.mp4 (empty_file)\n" in capsys.readouterr().out
    assert second["reasons"] == {"empty_file": 1, "silent": 1}


def ledger_details(tmp_path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in pyarrow.parquet.read_table(tmp_path / "out/ledger.parquet").to_pylist():
        found.setdefault(row["path"], []).append(row["detail"])
    return found


def test_half_a_file_is_used_where_nothing_better_was_there(
    tmp_path: Path,
    run: Callable[..., dict[str, Any]],
    videos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (videos / "ann/a.mp4").write_bytes(b"half of it")
    first = run()
    told = capsys.readouterr().out
    assert "used as far as they can be read: ann/a.mp4 (ends at 1.0 s of 9.0 s)\n" in told
    assert first["clips_accepted"] == 2
    (detail,) = ledger_details(tmp_path)["ann/a.mp4"]
    assert detail.endswith("ends at 1.0 s of 9.0 s")
    (videos / "ann/a.mp4").write_bytes(b"all of it")
    second = run()
    assert "used as far as they can be read" not in capsys.readouterr().out
    assert second["digest"] != first["digest"]
    assert "ends at" not in ledger_details(tmp_path)["ann/a.mp4"][0]
    (videos / "ann/a.mp4").write_bytes(b"half of it once more")
    third = run()
    assert "stay as they were: ann/a.mp4 (unreadable)\n" in capsys.readouterr().out
    assert third["digest"] == second["digest"]
    details = ledger_details(tmp_path)["ann/a.mp4"]
    assert "cut; what the file gave before is kept" in details
    run()
    assert "ingest: all 3 files were done before" in capsys.readouterr().out


def test_the_end_tells_what_there_is_and_what_is_missing(
    tmp_path: Path,
    run: Callable[..., dict[str, Any]],
    videos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(min_confidence=4.5)
    told = capsys.readouterr().out
    assert (
        f"dataset {tmp_path}/out: of 2 clips from 3 files, 1 are accepted and 1 refused "
        "(1 low_confidence); in addition, 1 files or stretches of files have no clip (1 silent)\n"
    ) in told
    assert "clips exist of only 1 speaker, all for training: add videos of others" in told
    assert told.splitlines()[-1].startswith(f"what is in it: {tmp_path}/out/card/card.html")
    card = (tmp_path / "out/card/README.md").read_text()
    assert "There is no test split: 20% of the speakers are wanted" in card
    (videos / "loose.mp4").write_bytes(b"loose")
    run(min_confidence=3.0)
    told = capsys.readouterr().out
    assert "speakers: 1 files are not in a folder that names a speaker" in told
    assert "no test split" not in told
    card = (tmp_path / "out/card/README.md").read_text()
    assert "1 input files are not in a folder that names a speaker" in card
    assert "no test split" not in card


def test_the_threshold_in_force_is_told(tmp_path: Path, videos: Path) -> None:
    refresh = make_refresh(tmp_path / "out")
    defaults = replace(refresh.settings, thresholds=Thresholds())
    issue(replace(refresh, settings=defaults), list_folder(videos))
    assert "| min\\_confidence | 3 |" in (tmp_path / "out/card/README.md").read_text()
    receipt = json.loads((tmp_path / "out/refresh.json").read_text())
    assert receipt["thresholds_in_force"]["min_confidence"] == 3.0
    assert receipt["thresholds"]["min_confidence"] is None, "another scorer has its own"


def test_no_clip_at_all_is_a_mistake_with_its_reasons(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "show_table", lambda *_: None)
    counts = {"not_media": 9, "silent": 3, "no_face": 2, "unreadable": 1, "too_short": 1}
    result: VersionSummary = {
        "dataset": str(tmp_path),
        "digest": "d" * 64,
        "inputs": 16,
        "clips_accepted": 0,
        "clips_rejected": 16,
        "reasons": counts,
        "reasons_without_clip": counts,
        "splits": {},
        "loose_files": 0,
        "speakers": 0,
    }
    text = r"from 16 files \(9 not_media, 3 silent, 2 no_face, 1 unreadable, 1 others\)"
    with pytest.raises(UserError, match=text):
        module.conclude(result)


def test_clips_that_are_cut_already_are_short_and_neither_searched_nor_scored() -> None:
    options = refresh_module.ClipOptions()
    for source in ("lrs2", "lrs3"):
        config = options.config(source)
        assert (config.scorer, config.min_frames, config.shots) == ("none", 25, False)
    other = options.config("voxceleb2")
    assert other == IngestConfig()
    asked = refresh_module.ClipOptions(scorer="mouth-audio").config("lrs2")
    assert asked.scorer == "mouth-audio"
