"""Listing a folder of videos."""

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
