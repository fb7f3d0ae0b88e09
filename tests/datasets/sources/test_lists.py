"""Listing by source name: folders at an address, lists of addresses, and the rule of splits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from datasets.errors import Reason, UserError
from datasets.sources.items import How, SourceItem
from datasets.sources.lists import ListOptions, list_source, one_side_each
from tests.support.file_server import file_server

SUM = "0123456789abcdef" * 4


@pytest.fixture
def bucket() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/bucket", recursive=True)


def listed(folder: Path, text: str) -> list[SourceItem]:
    (folder / "list.txt").write_text(text, encoding="utf-8")
    return list_source("urls", str(folder / "list.txt"), options=ListOptions(ask_servers=False))


def test_a_folder_here(tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "a.mp4").write_bytes(b"12345")
    [item] = list_source("folder", str(tmp_path))
    assert (item.key, item.speaker, item.how) == ("ann/a.mp4", "ann", How.LOCAL)
    assert item.expected_bytes == 5


def test_a_folder_at_an_address(bucket: Any) -> None:
    for name in ("ann/1.mp4", "ann/1.json", "bob/deep/2.mp4", "top.mkv", ".hidden/3.mp4", "n.txt"):
        bucket.pipe(f"/bucket/videos/{name}", b"1234")
    items = list_source("folder", "memory://bucket/videos/")
    assert [(item.key, item.speaker) for item in items] == [
        ("ann/1.mp4", "ann"),
        ("bob/deep/2.mp4", "bob"),
        ("n.txt", "n"),
        ("top.mkv", "top"),
    ]
    assert {item.how for item in items} == {How.FILE}
    assert {item.expected_bytes for item in items} == {4}
    assert all(item.version for item in items)
    assert [fsspec.open(item.location).open().read() for item in items] == [b"1234"] * 4


def test_folders_that_cannot_be_listed(bucket: Any) -> None:
    bucket.pipe("/bucket/a", b"")
    with pytest.raises(UserError, match="is empty"):
        list_source("folder", "memory://bucket/empty")
    with pytest.raises(UserError, match="use the source 'urls'"):
        list_source("folder", "https://host/videos/")
    with pytest.raises(UserError, match="there is no source 'tape'"):
        list_source("tape", "x")


def test_addresses_of_all_kinds(tmp_path: Path) -> None:
    (tmp_path / "here.mp4").write_bytes(b"1")
    items = listed(
        tmp_path,
        "\ufeff# Talks\n"
        "https://host/talks/a.mp4\tAnn Smith\n"
        "\n"
        "https://www.youtube.com/watch?v=abc bob # a page\n"
        f"s3://bucket/c.webm {SUM.upper()}\n"
        f"gs://bucket/d.mov {SUM} dora\n"
        "here.mp4\tann\n"
        "https://www.youtube.com/watch?v=abc bob\n",
    )
    assert [(item.how, item.relative, item.speaker, item.sha256) for item in items] == [
        (How.FILE, "host/talks/a.mp4", "Ann Smith", ""),
        (How.PAGE, "www.youtube.com/watch?v=abc", "bob", ""),
        (How.FILE, "bucket/c.webm", "bucket/c.webm", SUM),
        (How.FILE, "bucket/d.mov", "dora", SUM),
        (How.LOCAL, "here.mp4", "ann", ""),
    ]
    assert items[-1].path.read_bytes() == b"1"


def test_signatures_are_not_written_down(tmp_path: Path) -> None:
    items = listed(
        tmp_path,
        "https://host/a.mp4?X-Amz-Signature=secret&X-Amz-Expires=9\n"
        "https://host/get.mp4?id=1\nhttps://host/get.mp4?id=2\n",
    )
    first, *others = items
    assert first.key == first.relative == first.speaker == "host/a.mp4"
    assert first.location.endswith("Expires=9")
    assert len({item.key for item in others}) == 2
    (named,) = listed(tmp_path, "https://ann:secret@host/a.mp4")
    assert (named.key, named.reason, named.detail) == (
        "host/a.mp4",
        Reason.NOT_ALLOWED,
        "it comes with a user's name",
    )


def test_lines_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2 of .* has 3 columns"):
        listed(tmp_path, "https://host/a.mp4 ann\nhttps://host/b.mp4 ann smith\n")
    with pytest.raises(UserError, match=r"line 2 of .* again, with another speaker"):
        listed(tmp_path, "https://host/a.mp4 ann\nhttps://host/a.mp4 bob\n")
    with pytest.raises(UserError, match="no address"):
        listed(tmp_path, "# nothing\n")
    with pytest.raises(UserError, match="one address per line"):
        list_source("urls", str(tmp_path / "none.txt"))


def test_a_list_on_a_server(bucket: Any) -> None:
    with file_server() as files:
        files.content["lists/talks.txt"] = b"a.mp4 ann\nhttps://host/b.mp4\n"
        options = ListOptions(ask_servers=False)
        items = list_source("urls", f"{files.address}/lists/talks.txt", options=options)
        assert items[0].location == f"{files.address}/lists/a.mp4"
    assert [item.how for item in items] == [How.FILE, How.FILE]
    bucket.pipe("/bucket/lists/talks.txt", b"deep/a.mp4 ann\n")
    [item] = list_source("urls", "memory://bucket/lists/talks.txt", options=options)
    assert item.location == "memory://bucket/lists/deep/a.mp4"


def test_all_items_of_a_speaker_are_on_one_side() -> None:
    def item(key: str, speaker: str, split: str) -> SourceItem:
        return SourceItem(key, key, key, speaker, split=split)

    items = one_side_each([item("1", "ann", ""), item("2", "ann", "test"), item("3", "bob", "")])
    assert [item.split for item in items] == ["test", "test", ""]
    with pytest.raises(UserError, match="ann is both in train and in test"):
        one_side_each([item("1", "ann", "train"), item("2", "ann", "test")])
