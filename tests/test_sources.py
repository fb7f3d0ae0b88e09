"""Listing a folder of videos."""

import os
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.sources import list_folder


def test_every_file_is_listed_once(tmp_path: Path) -> None:
    for name in ("b/2.mp4", "b/1.mp4", "b/1.json", "a é/deep/x.avi", "top.mkv", "note.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    items = list_folder(tmp_path)
    assert [item.relative for item in items] == [
        "a é/deep/x.avi",
        "b/1.mp4",
        "b/2.mp4",
        "note.txt",
        "top.mkv",
    ]
    assert [item.speaker for item in items] == ["a é", "b", "b", "note", "top"]
    assert len({item.key for item in items}) == 5
    assert all(item.path.is_file() for item in items)


def test_mistakes_are_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no"):
        list_folder(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no file"):
        list_folder(tmp_path)
    (tmp_path / "f").touch()
    with pytest.raises(UserError, match="is a file"):
        list_folder(tmp_path / "f")


def test_a_linked_folder_is_entered_once_and_by_its_own_name_first(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "1.mp4").write_text("x")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    elsewhere = tmp_path / "outside"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "2.mp4").write_text("x")
    folder = tmp_path / "z" / "linked"
    folder.symlink_to(elsewhere)
    assert [item.relative for item in list_folder(tmp_path / "z")] == [
        "1.mp4",
        "linked/deep/2.mp4",
    ]
    names = [item.relative for item in list_folder(tmp_path)]
    assert names == ["outside/deep/2.mp4", "z/1.mp4"]


def test_names_that_are_no_text_can_still_be_written_down(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))
    try:
        path.write_text("x")
    except OSError:
        pytest.skip("this file system allows only names in UTF-8")
    [item] = list_folder(tmp_path)
    assert item.key == item.relative == "\\xff.mp4"
    assert item.speaker == "\\xff"
    assert item.path.read_text() == "x"


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "a.mp4").write_text("x")
    assert [item.key for item in list_folder(tmp_path)] == ["a.mp4"]
