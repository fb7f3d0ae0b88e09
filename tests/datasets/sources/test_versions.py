"""Whether files behind addresses have changed, asked without fetching them."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from datasets.fetch.item import fetch
from datasets.fetch.policy import DownloadSettings
from datasets.sources.addresses import AddressPolicy
from datasets.sources.items import How, SourceItem
from datasets.sources.lists import ListOptions, list_source
from datasets.sources.versions import with_versions
from tests.support.file_server import Files, file_server

SETTINGS = DownloadSettings(keep_free_bytes=0, addresses=AddressPolicy(allow_private=True))
NEAR = ListOptions(addresses=AddressPolicy(allow_private=True, schemes=("http", "https", "memory")))


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.content = {"a.mp4": b"first", "b.mp4": b"other"}
        yield files


def listed(server: Files, folder: Path, *more: str) -> list[SourceItem]:
    lines = [f"{server.address}/a.mp4 ann", f"{server.address}/b.mp4 bob", *more]
    (folder / "list.txt").write_text("\n".join(lines))
    return list_source("urls", str(folder / "list.txt"), options=NEAR)


def test_a_changed_file_is_fetched_again_and_no_other(server: Files, tmp_path: Path) -> None:
    first, other = listed(server, tmp_path)
    assert (first.version, first.expected_bytes) == ('"1"', 5)
    for item in (first, other):
        fetch(item, tmp_path / "cache", SETTINGS)
    server.requests.clear()
    server.etag, server.content["a.mp4"] = '"2"', b"second"
    changed, _ = listed(server, tmp_path)
    assert (changed.version, changed.expected_bytes) == ('"2"', 6)
    assert fetch(changed, tmp_path / "cache", SETTINGS).path.read_bytes() == b"second"
    assert fetch(other, tmp_path / "cache", SETTINGS).path.read_bytes() == b"other"
    *asked, fetched = [path for path, _ in server.requests]
    # Versions are asked for side by side.
    assert (sorted(asked), fetched) == (["a.mp4", "b.mp4"], "a.mp4")


def test_objects_are_asked_as_well(server: Files, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/versions/c.mp4", b"1234567")
    *_, item = listed(server, tmp_path, "memory://versions/c.mp4")
    assert item.expected_bytes == 7
    assert item.version


def test_servers_that_do_not_answer_change_nothing(server: Files, tmp_path: Path) -> None:
    server.statuses = [405, 503, 404]
    items = listed(server, tmp_path, f"{server.address}/c.mp4")
    assert [(item.version, item.expected_bytes) for item in items] == [("", 0)] * 3
    dead = SourceItem("d", "http://127.0.0.1:1/d.mp4", "d", "d", How.FILE)
    assert with_versions([dead]) == [dead]


def test_what_needs_no_asking(server: Files, tmp_path: Path) -> None:
    (tmp_path / "here.mp4").write_bytes(b"1")
    (tmp_path / "list.txt").write_text(
        f"{server.address}/a.mp4 {'0' * 64}\n{server.address}/watch\nhere.mp4\n"
    )
    seen: list[tuple[object, ...]] = []
    items = list_source("urls", str(tmp_path / "list.txt"), options=NEAR)
    assert [item.version for item in items] == ["0" * 64, "", ""]
    assert server.requests == []
    with_versions(listed(server, tmp_path), lambda *counts: seen.append(counts))
    assert seen == [(1, 2), (2, 2)]


def test_asking_can_be_left_out(server: Files, tmp_path: Path) -> None:
    listed(server, tmp_path)
    server.requests.clear()
    options = ListOptions(ask_servers=False)
    items = list_source("urls", str(tmp_path / "list.txt"), options=options)
    assert [item.version for item in items] == ["", ""]
    assert server.requests == []
