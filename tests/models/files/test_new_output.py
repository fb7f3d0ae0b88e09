"""What is written appears whole or not at all, and nothing of the user's goes for it."""

import os
from pathlib import Path

import pytest
import torch

from models.files.errors import ModelFileError
from models.files.new_output import check_free, new_file, new_folder, save_weights


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


@pytest.mark.parametrize("output", [new_folder, new_file])
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
        with pytest.raises(ModelFileError, match=r"is there already|cannot be written"):
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
