"""The cache: one fetch per address, whole or not there, one process at a time."""

import multiprocessing
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.errors import Reason, SourceError
from datasets.fetch.item import discard, fetch
from datasets.fetch.policy import DownloadSettings
from datasets.sources.addresses import AddressPolicy
from datasets.sources.items import How, SourceItem, local_item
from datasets.sources.zip_parts import list_members
from tests.support.fake_clock import FakeClock
from tests.support.file_server import Files, file_server
from tests.support.zip_series import cut, make_zip

BODY = bytes(range(256)) * 4000
SETTINGS = DownloadSettings(
    attempts=2, keep_free_bytes=0, addresses=AddressPolicy(allow_private=True)
)


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.content["clip%20one.mp4"] = BODY
        yield files


@pytest.fixture
def item(server: Files) -> SourceItem:
    return SourceItem("one", f"{server.address}/clip%20one.mp4", "one", "ann", How.FILE)


def test_a_local_file_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1234")
    local = local_item(tmp_path / "a.mp4", "a.mp4", "a")
    done = fetch(local, tmp_path / "cache")
    assert (done.path, done.bytes, done.sha256) == (tmp_path / "a.mp4", 4, "")
    discard(local, tmp_path / "cache")
    assert done.path.is_file()
    assert not (tmp_path / "cache").exists()
    done.path.unlink()
    with pytest.raises(SourceError) as caught:
        fetch(local, tmp_path / "cache")
    assert caught.value.reason is Reason.UNREADABLE


def test_two_items_of_one_address_are_one_fetch(
    server: Files, item: SourceItem, tmp_path: Path
) -> None:
    done = fetch(item, tmp_path, SETTINGS)
    assert fetch(replace(item, key="two", speaker="bob"), tmp_path, SETTINGS) == done
    assert len(server.requests) == 1
    assert done.path.name.startswith("clip-20one-")


def test_a_file_that_lost_bytes_in_the_cache_is_fetched_again(
    server: Files, item: SourceItem, tmp_path: Path
) -> None:
    path = fetch(item, tmp_path, SETTINGS).path
    path.write_bytes(BODY[:-1])
    assert fetch(item, tmp_path, SETTINGS).path.read_bytes() == BODY
    assert len(server.requests) == 2


def test_discarding_leaves_nothing(item: SourceItem, tmp_path: Path) -> None:
    fetch(item, tmp_path, SETTINGS)
    discard(item, tmp_path, SETTINGS)
    assert list(tmp_path.iterdir()) == []
    discard(item, tmp_path, SETTINGS)
    assert fetch(item, tmp_path, SETTINGS).path.read_bytes() == BODY


def test_threads_that_want_one_file_fetch_it_once(
    server: Files, item: SourceItem, tmp_path: Path
) -> None:
    results: list[bytes] = []

    def work() -> None:
        results.append(fetch(item, tmp_path, SETTINGS).path.read_bytes())

    workers = [threading.Thread(target=work) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [BODY] * 5
    assert len(server.requests) == 1


def _fetch_in_process(item: SourceItem, folder: Path) -> None:
    fetch(item, folder, SETTINGS)


def test_a_process_that_is_killed_leaves_a_part_and_no_lock(
    server: Files, item: SourceItem, tmp_path: Path
) -> None:
    server.stall_after = [500_000]
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_fetch_in_process, args=(item, tmp_path))
    process.start()
    while not any(part.stat().st_size == 500_000 for part in tmp_path.glob("*.part")):
        assert process.is_alive()
        threading.Event().wait(0.02)
    # While it works, nobody else may.
    with pytest.raises(SourceError, match="within 3 s") as caught:
        fetch(item, tmp_path, replace(SETTINGS, deadline_s=3.0), FakeClock().clock)
    assert caught.value.reason is Reason.TIMED_OUT
    process.kill()
    process.join()
    assert fetch(item, tmp_path, SETTINGS).path.read_bytes() == BODY
    assert server.requests[-1][1] == "bytes=500000-"


def zip_items(folder: Path) -> list[SourceItem]:
    files = {f"dev/mp4/id1/video/0000{n}.mp4": bytes([n]) * (100_000 * n) for n in (1, 2, 3)}
    for suffix, piece in cut(make_zip(files, zipfile.ZIP_DEFLATED), 150).items():
        (folder / f"vox2_mp4_part{suffix}").write_bytes(piece)
    parts = sorted(str(path) for path in folder.glob("vox2*"))
    return [
        SourceItem(m.name, parts[0], m.name, "id1", How.MEMBER, version=str(m.crc32), member=m)
        for m in list_members(parts)
    ]


def test_members_are_unpacked_one_at_a_time(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second, third = zip_items(tmp_path)
    done = fetch(second, cache, SETTINGS)
    assert done.path.read_bytes() == b"\2" * 200_000
    assert done.path.parent == cache
    assert done.path.name.startswith("id1-video-00002-")
    assert len(list(cache.glob("*.mp4"))) == 1
    discard(second, cache, SETTINGS)
    assert fetch(first, cache, SETTINGS).path != fetch(third, cache, SETTINGS).path


def test_a_member_whose_archive_has_gone(tmp_path: Path) -> None:
    first, *_ = zip_items(tmp_path)
    for path in tmp_path.glob("vox2*"):
        path.unlink()
    with pytest.raises(SourceError) as caught:
        fetch(first, tmp_path / "cache", SETTINGS, FakeClock().clock)
    assert caught.value.reason is Reason.UNAVAILABLE
