"""Packing gives the same bytes for the same clips, and takes nothing that is not its own."""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet
import pytest

from datasets.errors import UserError
from datasets.records import COLUMNS, ClipRow
from tasks.dataset_pack import (
    LEDGER,
    PackConfig,
    accepted,
    check_output,
    fingerprint,
    ledger_bytes,
    pack,
    published,
    reasons,
)

CONFIG = PackConfig(resolution=64, test_fraction=0.3)


def rows(refused: int = 1) -> list[dict[str, object]]:
    made = []
    for number in range(6):
        row = ClipRow(path=f"s{number}/v.mp4", clip_id=f"clip-{number}", speaker=f"s{number}")
        row.num_frames, row.av_offset_frames, row.sync_confidence = 50, 1.5, 4.0
        row.scorer, row.verdict = "mouth-audio", "accepted"
        if number < refused:
            row.verdict, row.reason = "rejected", "silent"
        made.append(row.as_dict())
    return made


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for number in range(6):
        files = {kind: tmp_path / f"clip-{number}.{kind}" for kind in ("mp4", "flac", "npy")}
        for kind, path in files.items():
            path.write_bytes(f"{kind} {number}".encode() * 100)
        found[f"clip-{number}"] = files
    return found


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_clips_give_the_same_bytes(
    tmp_path: Path, clips: dict[str, dict[str, Path]]
) -> None:
    first = pack(rows(), clips, tmp_path / "one", CONFIG)
    second = pack(rows(), clips, tmp_path / "two", CONFIG)
    assert first == second
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert pack(rows(2), clips, tmp_path / "one", CONFIG) != first


def test_shards_hold_the_accepted_clips_split_by_speaker(
    tmp_path: Path, clips: dict[str, dict[str, Path]]
) -> None:
    pack(rows(), clips, tmp_path / "out", CONFIG)
    speakers: dict[str, set[str]] = {"train": set(), "test": set()}
    names = []
    for path in (tmp_path / "out" / "shards").glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                names.append(member.name)
                if member.name.endswith(".json"):
                    file = tar.extractfile(member)
                    assert file is not None
                    facts = json.load(file)
                    assert facts["split"] == path.name.split("-")[0]
                    assert facts["resolution"] == 64
                    speakers[facts["split"]].add(facts["speaker"])
    assert len(names) == 5 * 4
    assert not [name for name in names if name.startswith("clip-0")]
    assert speakers["train"]
    assert speakers["test"]
    assert not speakers["train"] & speakers["test"]


def test_the_ledger_has_the_agreed_columns_in_order(tmp_path: Path) -> None:
    path = tmp_path / LEDGER
    path.write_bytes(ledger_bytes(rows()))
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == list(COLUMNS)
    assert table.num_rows == 6
    path.write_bytes(ledger_bytes([]))
    assert pyarrow.parquet.read_table(path).num_rows == 0


def test_published_is_known_by_content(tmp_path: Path, clips: dict[str, dict[str, Path]]) -> None:
    out = tmp_path / "out"
    wanted = fingerprint(rows(), CONFIG)
    assert published(out, wanted) is None
    digest = pack(rows(), clips, out, CONFIG)
    assert published(out, wanted) == digest
    assert published(out, fingerprint(rows(2), CONFIG)) is None
    assert published(out, fingerprint(rows(), PackConfig(64, 0.5))) is None
    next((out / "shards").glob("*.tar")).unlink()
    assert published(out, wanted) is None


def test_nothing_accepted_is_still_a_dataset_with_a_ledger(tmp_path: Path) -> None:
    pack(rows(6), {}, tmp_path, CONFIG)
    assert accepted(rows(6)) == []
    assert json.loads((tmp_path / "index.json").read_text())["shards"] == []
    assert reasons(rows(6)) == {"silent": 6}


def test_files_of_others_are_not_touched(tmp_path: Path) -> None:
    mine = tmp_path / "shards" / "mine.tar"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(UserError, match="not of a dataset made here"):
        check_output(tmp_path, None)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match="no dataset index"):
        check_output(tmp_path, None)
    with pytest.raises(UserError, match="is a file"):
        check_output(mine, None)


def test_the_output_may_not_lie_in_the_input(tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "a" / "b", tmp_path / "x" / ".." / "c"):
        with pytest.raises(UserError, match="inside the input"):
            check_output(output, tmp_path)
    check_output(tmp_path / "out", tmp_path / "in")
