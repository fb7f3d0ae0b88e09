"""What is written appears whole or not at all, and nothing of the user's goes for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.files.errors import ModelFileError
from models.files.new_output import (
    check_free,
    new_file,
    new_folder,
    replacing_file,
    replacing_folder,
    save_weights,
)

ROOT = Path(__file__).resolve().parents[3]
STOPPED = """
import sys
from pathlib import Path
from models.files.new_output import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    print("half", flush=True)
    sys.stdin.read()
"""


def test_neighbours_of_every_name_stay(tmp_path: Path) -> None:
    for name in ("out.tmp", ".out.tmp", "out.pt.tmp"):
        (tmp_path / name).write_text("precious")
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    with new_file(tmp_path / "out.pt") as file:
        file.write_text("2")
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert (tmp_path / "out.pt").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".out.tmp", "out", "out.pt", "out.pt.tmp", "out.tmp",
    ]  # fmt: skip


def make(target: Path) -> None:
    with new_folder(target):
        pass


@pytest.mark.parametrize("output", [new_folder, new_file, replacing_folder, replacing_file])
def test_nothing_is_left_of_a_failure(output: object, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), output(tmp_path / "new" / "deep" / "out"):  # type: ignore[operator]
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_taken_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "a").touch()
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(tmp_path / "nowhere")
    file.touch()
    for taken in (tmp_path / "empty", link, file, file / "below"):
        with pytest.raises(ModelFileError, match=r"already exists|cannot be written"):
            make(taken)
    with pytest.raises(ModelFileError, match="has no name of its own"):
        check_free(Path("."))
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelFileError, match="is a folder"), new_file(tmp_path / "folder"):
        pass


def test_others_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with new_folder(tmp_path / "out") as folder:
            save_weights({"a": torch.zeros(2)}, folder / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "a.safetensors").stat().st_mode & 0o777 == 0o644


def test_the_old_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    for text in ("1", "2"):
        with replacing_folder(folder) as new:
            (new / text).touch()
            assert not folder.exists() or os.listdir(folder) == ["1"]
        with replacing_file(file) as path:
            path.write_text(text)
            assert not file.exists() or file.read_text() == "1"

    def interrupted() -> None:
        with replacing_folder(folder) as new, replacing_file(file) as path:
            (new / "3").touch()
            path.write_text("3")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(folder) == ["2"]
    assert file.read_text() == "2"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_file_is_no_folder_to_replace(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with (
        pytest.raises(ModelFileError, match="is not a folder"),
        replacing_folder(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out").read_text() == "precious"


def test_what_killed_writers_left_goes_and_writers_at_work_are_spared(tmp_path: Path) -> None:
    (tmp_path / ".other.0123abcd.tmp").mkdir()
    target = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(target)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline()
    (place,) = tmp_path.glob(".out.*")
    make(target)
    assert place.is_dir()
    process.kill()
    process.communicate()
    assert place.is_dir()
    make(target)
    assert sorted(os.listdir(tmp_path)) == [".other.0123abcd.tmp", "out"]


def test_a_writer_killed_while_replacing_left_the_old_one(tmp_path: Path) -> None:
    """It goes only when there is something in its place again."""
    before = tmp_path / ".out.0123abcd.tmp" / "before"
    before.mkdir(parents=True)

    def fail() -> None:
        with replacing_folder(tmp_path / "out"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert before.is_dir()
    make(tmp_path / "out")
    assert before.is_dir()
    with replacing_folder(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == ["out"]


def test_without_locks_it_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", unknown)
    (tmp_path / ".out.0123abcd.tmp").mkdir()
    make(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [".out.0123abcd.tmp", "out"]
