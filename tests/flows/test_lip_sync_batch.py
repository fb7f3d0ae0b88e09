"""A table of jobs for real: a small bundle, Ray's workers, and kills in the middle."""

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.batch import make_jobs, run_killed
from datasets.errors import UserError
from flows import lip_sync_batch as module

DIRECT = (
    sys.executable,
    "-c",
    "import sys\n"
    "from flows import lip_sync_batch as module\n"
    "module.work = module.work.fn\n"
    "module.lip_sync_batch.fn(sys.argv[1], sys.argv[2], model=sys.argv[4], workers=1,"
    " estimate=False, tracking_uri='sqlite:///' + sys.argv[2] + '.db')\n",
)
"""The command without Prefect's server."""


def batch(table: Path, output: Path, **options: Any) -> module.BatchSummary:
    """The flow with its one step as a plain function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "work", module.work.fn)
        return module.lip_sync_batch.fn(
            str(table),
            str(output),
            model=str(table.parent / "bundle"),
            tracking_uri=f"sqlite:///{output.parent}/m.db",
            **({"workers": 1} | options),
        )


def results(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


@pytest.mark.timeout(600)
def test_killed_batches_end_with_every_row_right_and_nothing_done_twice(tmp_path: Path) -> None:
    found = run_killed(tmp_path, 6, 2, DIRECT)
    assert (found["rows"], found["right"], found["twice"], found["left_over"]) == (6, 6, 0, 0)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with three jobs."""
    return make_jobs(tmp_path_factory.mktemp("my jobs"), 3)


def test_every_row_has_a_result_with_its_reason(
    jobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = [json.loads(line) for line in jobs.read_text().splitlines()]
    table = jobs.with_name("five.csv")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*first, "output", "length", "segments"])
        writer.writeheader()
        writer.writerow(first)
        writer.writerow(first | {"audio": "missing.flac"})
        writer.writerow(first | {"length": "twice"})
        writer.writerow(first | {"video": str(jobs)})
        writer.writerow(first | {"audio": "", "segments": json.dumps({"audio": first["audio"]})})
    output = tmp_path / "not yet" / "there"
    found = batch(table, output, estimate=False)
    assert (found["jobs"], found["done"], found["failed"]) == (5, 2, 3)
    rows = results(output)
    assert [(row["row"], row["status"], row["reason"]) for row in rows] == [
        (1, "done", ""),
        (2, "failed", "unreadable"),
        (3, "failed", "refused"),
        (4, "failed", "not_media"),
        (5, "done", ""),
    ]
    assert "--length must be one of" in rows[2]["detail"]
    assert found["reasons"] == {"unreadable": 1, "not_media": 1, "refused": 1}
    assert [Path(row["output"]).is_file() for row in rows] == [True, False, False, False, True]
    assert [row["frames"] for row in rows] == [4, 0, 0, 0, 8]
    with (output / "results.csv").open(encoding="utf-8") as file:
        assert [row["detail"] for row in csv.DictReader(file)] == [row["detail"] for row in rows]
    assert "2 of 5 jobs are done, 3 failed (1 not_media" in capsys.readouterr().out


@pytest.mark.long
def test_a_finished_batch_is_finished_and_what_changed_is_done(
    jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "batch"
    assert batch(jobs, output)["done"] == 3
    before = {path: path.stat().st_mtime_ns for path in (output / "videos").iterdir()}
    assert len(before) == 3
    with monkeypatch.context() as patch:
        patch.setattr(module, "ray_session", pytest.fail)
        assert batch(jobs, output)["done"] == 3
    gone, *kept = sorted(before)
    gone.unlink()
    speech = jobs.with_name("0.25.flac")
    assert batch(jobs, output, estimate=False)["done"] == 3
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)
    assert gone.is_file()
    os.utime(speech, ns=(1, 1))
    assert batch(jobs, output, estimate=False)["done"] == 3
    changed = [path for path in kept if path.stat().st_mtime_ns != before[path]]
    assert [path.name[:1] for path in changed] == ["2"]


def test_a_dry_run_says_how_long_it_takes_and_does_nothing(
    jobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "batch"
    found = batch(jobs, output, dry_run=True)
    assert found["estimated_s"] is not None
    assert found["estimated_s"] > 0
    assert (found["done"], found["results"]) == (0, "")
    assert not (output / "videos").exists()
    assert "for 3 jobs with 15 frames on 1 worker" in capsys.readouterr().out


@pytest.mark.long
def test_what_failed_is_done_again_when_it_is_asked_for(jobs: Path, tmp_path: Path) -> None:
    first = json.loads(jobs.read_text().splitlines()[0])
    table, late = jobs.with_name("late.jsonl"), tmp_path / "late.flac"
    table.write_text(json.dumps(first | {"audio": str(late)}) + "\n", encoding="utf-8")
    output = tmp_path / "batch"
    assert batch(table, output)["failed"] == 1
    receipt = next((output / "receipts").iterdir())
    before = receipt.stat().st_mtime_ns
    assert batch(table, output)["failed"] == 1
    assert receipt.stat().st_mtime_ns == before
    assert batch(table, output, retry_failed=True)["failed"] == 1
    assert receipt.stat().st_mtime_ns != before
    late.write_bytes(Path(first["audio"]).read_bytes())
    assert batch(table, output)["done"] == 1


def test_options_of_the_command_hold_for_rows_that_say_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "jobs.parquet"
    rows = [
        {"video": "a.mp4", "audio": "a.wav", "steps": 7.0, "face": None},
        {"video": "b.mp4", "audio": None, "steps": float("nan"), "face": "2"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), table)
    shared = {"audio": "all.wav", "steps": 3, "face": "largest"}
    first, second = module.read_rows(table, tmp_path / "out", shared)
    assert first.job is not None
    assert second.job is not None
    assert (first.job.audio, first.job.steps, first.job.face) == ("a.wav", 7, "largest")
    assert (second.job.audio, second.job.steps, second.job.face) == ("all.wav", 3, "2")
    assert first.job.output == str(tmp_path / "out" / "videos" / "1-a.mp4")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "video,lenght\na.mp4,keep\n", "a column 'lenght', which no job has: did you"),
        ("a.csv", "video\na.mp4,keep\n", "line 2 has more cells than the heading"),
        ("a.csv", "video\n", "has no rows"),
        ("a.jsonl", '{"video": 1\n', "line 1 is no JSON"),
        ("a.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("a.parquet", "x", "cannot be read"),
        ("a.xlsx", "x", r"must be .csv, .parquet or .jsonl"),
        ("results.csv", "video\na.mp4\n", "is where the results would be written"),
        (
            "a.csv",
            "video,audio,output\na.mp4,a.wav,o.mp4\nb.mp4,a.wav,o.mp4\n",
            "row 1 and row 2 write the same output",
        ),
    ],
)
def test_a_table_that_cannot_be_done_is_refused_before_anything_is(
    name: str, content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "resolve_model", pytest.fail)
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        module.lip_sync_batch.fn(str(tmp_path / name), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]
