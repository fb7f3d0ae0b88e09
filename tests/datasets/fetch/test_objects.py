"""Objects of a store, here fsspec's own in memory, which can be made to fail."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from datasets.errors import Reason, SourceError, UserError
from datasets.fetch.item import fetch
from datasets.fetch.policy import DownloadSettings
from datasets.sources.items import How, SourceItem
from datasets.sources.lists import list_remote_folder
from tests.support.fake_clock import FakeClock

BODY = bytes(range(256)) * 40_000
"""Ten megabytes: several reads."""
SETTINGS = DownloadSettings(attempts=3, keep_free_bytes=0)
ADDRESS = "memory://bucket/ann/a.mp4"


@pytest.fixture
def files() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/ann/a.mp4", BODY)
    yield store
    store.rm("/bucket", recursive=True)


def item(address: str = ADDRESS) -> SourceItem:
    return SourceItem("a", address, "a", "ann", How.FILE)


class Breaking:
    """A file whose reads fail after so many bytes."""

    def __init__(self, file: Any, left: int, begun: list[int]) -> None:
        self.file, self.left, self.begun = file, left, begun

    def __enter__(self) -> "Breaking":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def seek(self, place: int) -> None:
        self.begun.append(place)
        self.file.seek(place)

    def read(self, count: int) -> bytes:
        if self.left <= 0:
            raise ConnectionError("the store has gone away")
        self.left -= count
        return bytes(self.file.read(count))


def break_reads(files: Any, monkeypatch: pytest.MonkeyPatch, *lefts: int) -> list[int]:
    """The next opened files fail after so many bytes; returns where reading began."""
    waiting: list[int] = list(lefts)
    begun: list[int] = []
    honest = type(files).open

    def opened(self: Any, path: str, mode: str = "rb", **more: Any) -> Any:
        left = waiting.pop(0) if waiting else 1 << 60
        return Breaking(honest(self, path, mode, **more), left, begun)

    monkeypatch.setattr(type(files), "open", opened)
    return begun


def test_an_object_comes_whole_and_once(files: Any, tmp_path: Path) -> None:
    done = fetch(item(), tmp_path, SETTINGS)
    assert done.path.read_bytes() == BODY
    assert done.path.name.endswith(".mp4")
    files.rm("/bucket/ann/a.mp4")
    assert fetch(item(), tmp_path, SETTINGS) == done
    files.pipe("/bucket/ann/a.mp4", BODY)


def test_what_came_is_gone_on_with(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = break_reads(files, monkeypatch, 4 << 20, 4 << 20)
    done = fetch(item(), tmp_path, SETTINGS, FakeClock().clock)
    assert done.path.read_bytes() == BODY
    assert begun == [0, 4 << 20, 8 << 20]


def test_an_object_that_changes_starts_anew(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = FakeClock()
    break_reads(files, monkeypatch, 4 << 20)
    sleep = time.clock.sleep

    def change(seconds: float) -> None:
        sleep(seconds)
        files.pipe("/bucket/ann/a.mp4", BODY[::-1])

    object.__setattr__(time.clock, "sleep", change)
    assert fetch(item(), tmp_path, SETTINGS, time.clock).path.read_bytes() == BODY[::-1]


def test_a_new_version_in_the_list_is_fetched(files: Any, tmp_path: Path) -> None:
    [listed] = list_remote_folder("memory://bucket")
    assert listed.version
    first = fetch(listed, tmp_path, SETTINGS)
    assert fetch(listed, tmp_path, SETTINGS) == first
    files.pipe("/bucket/ann/a.mp4", b"new content")
    [listed_again] = list_remote_folder("memory://bucket")
    assert listed_again.version != listed.version
    assert fetch(listed_again, tmp_path, SETTINGS).path.read_bytes() == b"new content"


def test_what_is_not_there_is_final(files: Any, tmp_path: Path) -> None:
    time = FakeClock()
    for address in ("memory://bucket/none.mp4", "memory://bucket/ann"):
        with pytest.raises(SourceError) as caught:
            fetch(item(address), tmp_path, SETTINGS, time.clock)
        assert caught.value.reason is Reason.UNAVAILABLE
    assert time.sleeps == []


def test_a_store_that_stays_away_is_given_up(
    files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_reads(files, monkeypatch, 0, 0, 0, 0)
    with pytest.raises(SourceError, match="gone away; given up after 3") as caught:
        fetch(item(), tmp_path, SETTINGS, FakeClock().clock)
    assert caught.value.reason is Reason.DOWNLOAD_FAILED


def test_addresses_that_nothing_opens(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        fetch(item("nosuch://a/b.mp4"), tmp_path, SETTINGS)
