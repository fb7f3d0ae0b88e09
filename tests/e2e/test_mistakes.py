"""What users get wrong ends in one sentence and exit code 2, and loses nothing."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.e2e.conftest import RunFlow

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("refresh_dataset --source folder --input {0}/empty --output {0}/out", "is empty"),
        ("refresh_dataset --source folder --input {0}/none --output {0}/out", "there is no"),
        ("refresh_dataset --source folder --input {0}/file --output {0}/out", "is a file"),
        ("refresh_dataset --source tape --output {0}/out", "no source 'tape'"),
        ("refresh_dataset --sources sample", "unrecognized arguments"),
        ("train_latentsync {0}/none --output {0}/out", "{0}/none"),
        ("train_latentsync {0}/none --output {0}/out --recipe huge", "huge"),
        ("train_latentsync {0}/none --output {0}/out --device cuda:99", "cuda:99"),
    ],
)
def test_a_mistake_is_one_sentence(
    folders: Path, run_flow: RunFlow, command: str, text: str
) -> None:
    name, *arguments = command.format(folders).split()
    ended = run_flow(name, *arguments)
    assert ended.code == 2, ended.err
    assert text.format(folders) in ended.err
    assert ended.err.count("\n") == 1


def test_a_folder_of_text_files_ends_as_rows(tmp_path: Path, run_flow: RunFlow) -> None:
    folder, output = tmp_path / "texts", tmp_path / "out"
    folder.mkdir()
    for number in range(3):
        (folder / f"note {number}.txt").write_text("no video", encoding="utf-8")
    ended = run_flow(
        "refresh_dataset", "--source=folder", f"--input={folder}", f"--output={output}"
    )
    assert ended.code == 2
    assert "no clip was accepted from 3 files (3 not_media)" in ended.err
    assert ended.err.count("\n") == 1
    table = pyarrow.parquet.read_table(output / "ledger.parquet")
    assert table["reason"].to_pylist() == ["not_media"] * 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for less than the clips."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(options, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing(
    small_disk: Path, sample_videos: Path, run_flow: RunFlow
) -> None:
    arguments = ("--source=folder", f"--input={sample_videos}", f"--output={small_disk}/out")
    ended = run_flow("refresh_dataset", *arguments)
    assert ended.code == 2, ended.err
    assert "disk is full" in ended.err
    assert ended.err.count("\n") == 1
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    ended = run_flow("refresh_dataset", *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert (small_disk / "out" / "index.json").is_file()
