"""What a source lists: items, regions, and the files of a folder."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.errors import Reason, UserError
from datasets.sources.items import How, Part, Region, SourceItem, list_folder, local_item


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
    with pytest.raises(UserError, match=f"there is no folder 'one' .{Path.cwd()}/one.: choose"):
        list_folder(Path("one"))
    with pytest.raises(UserError, match="is empty"):
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


def test_what_is_no_file_is_listed_without_being_opened(tmp_path: Path) -> None:
    """Opening the pipe would wait for ever; nothing is left out without a word."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "a.mp4").write_text("x")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert [item.key for item in list_folder(tmp_path)] == ["a.mp4", "gone.mp4", "pipe.mp4"]


def test_pixels_are_scaled_to_the_picture_that_was_fetched() -> None:
    region = Region(100, 20, 500, 420, height=720)
    assert region.pixels(1280, 720) == (100, 20, 500, 420)
    assert region.pixels(640, 360) == (50, 10, 250, 210)
    assert Region(500, 300, 900, 800, height=720).pixels(1280, 720) == (500, 300, 900, 720)
    with pytest.raises(ValueError, match="outside"):
        Region(2000, 0, 2010, 10, height=720).pixels(1280, 720)


def test_fractions_go_with_any_picture() -> None:
    region = Region(0.25, -0.1, 0.75, 0.5)
    assert region.pixels(400, 200) == (100, 0, 300, 100)
    assert region.pixels(40, 20) == (10, 0, 30, 10)


def test_an_item_is_wanted_while_some_part_of_it_can_be_used() -> None:
    item = SourceItem("a", "http://x/a", "a", "ann", How.FILE)
    bad = Part("1", 0, 1, reason=Reason.NOT_ANNOTATED)
    assert item.wanted
    assert replace(item, parts=(bad, Part("2", 1, 2))).wanted
    assert not replace(item, parts=(bad,)).wanted
    assert not replace(item, reason=Reason.NOT_ANNOTATED).wanted


def test_items_travel_and_only_local_ones_have_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1234")
    item = local_item(tmp_path / "a.mp4", "b/a.mp4", "b")
    assert pickle.loads(pickle.dumps(item)) == item
    assert (item.key, item.path, item.expected_bytes) == ("b/a.mp4", tmp_path / "a.mp4", 4)
    with pytest.raises(ValueError, match="must be fetched"):
        _ = SourceItem("a", "http://x/a", "a", "ann", How.FILE).path
