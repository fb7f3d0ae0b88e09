"""HTTP as it really is: servers that stall, tear off, refuse, change and lie."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import Reason, SourceError
from datasets.fetch.item import fetch
from datasets.fetch.policy import DownloadSettings
from datasets.sources.addresses import AddressPolicy
from datasets.sources.items import How, SourceItem
from tests.support.fake_clock import FakeClock
from tests.support.file_server import Files, file_server
from tests.support.raw_server import answer, raw_server

BODY = bytes(range(256)) * 8000
"""Two megabytes: several reads."""
SETTINGS = DownloadSettings(
    attempts=3, timeout_s=20.0, keep_free_bytes=0, addresses=AddressPolicy(allow_private=True)
)


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.content["v/a.mp4"] = BODY
        yield files


def item(server: Files, path: str = "v/a.mp4", sha256: str = "") -> SourceItem:
    return SourceItem(
        path, f"{server.address}/{path}", path, "ann", How.FILE, sha256=sha256, version=sha256
    )


def refused(server: Files, folder: Path, time: FakeClock, **changed: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        fetch(item(server), folder, replace(SETTINGS, **changed), time.clock)
    return caught.value


def test_a_file_comes_whole_and_once(server: Files, tmp_path: Path) -> None:
    first = fetch(item(server), tmp_path, SETTINGS)
    assert first.path.read_bytes() == BODY
    assert (first.bytes, first.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    assert first.path.name.startswith("a-")
    assert first.path.suffix == ".mp4"
    assert fetch(item(server), tmp_path, SETTINGS) == first
    assert len(server.requests) == 1


def test_a_file_that_breaks_off_is_gone_on_with(server: Files, tmp_path: Path) -> None:
    time = FakeClock()
    server.break_after = [300_000, 500_000]
    server.reset_after = []
    assert fetch(item(server), tmp_path, SETTINGS, time.clock).path.read_bytes() == BODY
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-", "bytes=800000-"]
    assert len(time.sleeps) == 2


def test_connections_that_are_torn_off(server: Files, tmp_path: Path) -> None:
    server.drops = 2
    server.reset_after = [400_000]
    done = fetch(item(server), tmp_path, SETTINGS, FakeClock().clock)
    assert done.path.read_bytes() == BODY
    assert len(server.requests) == 4


def test_a_server_that_falls_silent(server: Files, tmp_path: Path) -> None:
    server.stall_after = [600_000]
    quick = replace(SETTINGS, timeout_s=1.0)
    assert fetch(item(server), tmp_path, quick, FakeClock().clock).path.read_bytes() == BODY
    assert server.requests[-1][1] == "bytes=600000-"


def test_a_file_that_changes_in_between_starts_anew(server: Files, tmp_path: Path) -> None:
    other = BODY[::-1]

    def change(_: str) -> None:
        if len(server.requests) == 2:
            server.content["v/a.mp4"], server.etag = other, '"2"'

    server.on_request = change
    server.break_after = [1_000_000]
    done = fetch(item(server), tmp_path, SETTINGS, FakeClock().clock)
    assert done.path.read_bytes() == other
    assert done.version == '"2"'


def test_a_server_that_goes_on_with_another_file_all_the_same(
    server: Files, tmp_path: Path
) -> None:
    """It ignores If-Range; the answer's own ETag gives it away."""
    server.last_modified = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.etag = ""
    server.break_after = [1_000_000]

    def change(_: str) -> None:
        if len(server.requests) == 2:
            server.content["v/a.mp4"] = BODY[::-1] + b"longer"

    server.on_request = change
    done = fetch(item(server), tmp_path, SETTINGS, FakeClock().clock)
    assert done.path.read_bytes() == BODY[::-1] + b"longer"
    assert [asked for _, asked in server.requests] == [None, "bytes=1000000-", None]


def test_without_a_name_for_the_content_nothing_is_gone_on_with(
    server: Files, tmp_path: Path
) -> None:
    server.etag = ""
    server.break_after = [1_000_000]
    done = fetch(item(server), tmp_path, SETTINGS, FakeClock().clock)
    assert done.path.read_bytes() == BODY
    assert [asked for _, asked in server.requests] == [None, None]


def test_a_weak_etag_is_no_name_for_the_content(server: Files, tmp_path: Path) -> None:
    server.etag = 'W/"1"'
    server.break_after = [1_000_000]
    fetch(item(server), tmp_path, SETTINGS, FakeClock().clock)
    assert [asked for _, asked in server.requests] == [None, None]


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(
    server: Files, tmp_path: Path
) -> None:
    server.ranges = False
    server.break_after = [1_000_000] * 10
    problem = refused(server, tmp_path, FakeClock())
    assert problem.reason is Reason.DOWNLOAD_FAILED
    assert "1,000,000 of 2,048,000 bytes" in problem.detail
    assert len(server.requests) == 3


def test_a_later_run_goes_on_where_a_run_was_given_up(server: Files, tmp_path: Path) -> None:
    server.break_after = [700_000, 0, 0, 0, 0]
    refused(server, tmp_path, FakeClock())
    server.break_after = []
    assert fetch(item(server), tmp_path, SETTINGS).path.read_bytes() == BODY
    assert server.requests[-1][1] == "bytes=700000-"


def test_a_partial_file_that_was_whole_needs_no_connection(server: Files, tmp_path: Path) -> None:
    done = fetch(item(server), tmp_path, SETTINGS)
    name = done.path.stem
    done.path.replace(tmp_path / f"{name}.part")
    (tmp_path / f"{name}.json").unlink()
    (tmp_path / f"{name}.part.json").write_text(json.dumps({"version": '"1"', "total": len(BODY)}))
    assert fetch(item(server), tmp_path, SETTINGS) == done
    assert len(server.requests) == 1


def test_a_partial_file_longer_than_the_file_starts_anew(server: Files, tmp_path: Path) -> None:
    server.break_after = [700_000, 0, 0, 0, 0]
    refused(server, tmp_path, FakeClock())
    server.break_after = []
    server.content["v/a.mp4"] = BODY[:500]
    done = fetch(item(server), tmp_path, SETTINGS, FakeClock().clock)
    assert done.path.read_bytes() == BODY[:500]


def test_pauses_that_a_busy_server_asks_for(server: Files, tmp_path: Path) -> None:
    time = FakeClock()
    server.statuses = [429, 503]
    server.retry_after = "90"
    assert fetch(item(server), tmp_path, SETTINGS, time.clock).path.read_bytes() == BODY
    assert time.sleeps == [90.0, 90.0]


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_is_asked_for_once(server: Files, tmp_path: Path, status: int) -> None:
    time = FakeClock()
    server.statuses = [status]
    problem = refused(server, tmp_path, time)
    assert problem.reason is Reason.UNAVAILABLE
    assert problem.detail.startswith(f"HTTP {status}")
    assert len(server.requests) == 1
    assert time.sleeps == []


def test_a_refusal_may_pass(server: Files, tmp_path: Path) -> None:
    server.statuses = [403, 403]
    assert fetch(item(server), tmp_path, SETTINGS, FakeClock().clock).path.read_bytes() == BODY
    server.statuses = [403] * 9
    (tmp_path / "other").mkdir()
    problem = refused(server, tmp_path / "other", FakeClock())
    assert problem.reason is Reason.DOWNLOAD_FAILED
    assert "HTTP 403" in problem.detail
    assert "3 attempts" in problem.detail


def test_a_web_page_is_no_file(server: Files, tmp_path: Path) -> None:
    server.content_type = "text/html; charset=utf-8"
    problem = refused(server, tmp_path, FakeClock())
    assert problem.reason is Reason.DOWNLOAD_FAILED
    assert "web page" in problem.detail
    assert len(server.requests) == 1


def test_an_empty_file_is_refused(server: Files, tmp_path: Path) -> None:
    server.content["v/a.mp4"] = b""
    assert refused(server, tmp_path, FakeClock()).reason is Reason.EMPTY_FILE


def test_the_sum_that_was_given_is_held(server: Files, tmp_path: Path) -> None:
    right = item(server, sha256=hashlib.sha256(BODY).hexdigest())
    assert fetch(right, tmp_path, SETTINGS).path.read_bytes() == BODY


def test_a_wrong_sum_is_tried_twice(server: Files, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="sha256") as caught:
        fetch(item(server, sha256="0" * 64), tmp_path, SETTINGS, FakeClock().clock)
    assert caught.value.reason is Reason.DOWNLOAD_FAILED
    assert len(server.requests) == 2
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_bytes_that_were_damaged_on_the_way_are_fetched_again(
    server: Files, tmp_path: Path
) -> None:
    right = item(server, sha256=hashlib.sha256(BODY).hexdigest())
    server.content["v/a.mp4"] = b"x" + BODY[1:]

    def mend(_: str) -> None:
        if len(server.requests) == 2:
            server.content["v/a.mp4"] = BODY

    server.on_request = mend
    assert fetch(right, tmp_path, SETTINGS, FakeClock().clock).path.read_bytes() == BODY


def test_the_deadline_ends_a_trickle(server: Files, tmp_path: Path) -> None:
    """The rate makes each read take seconds; the file is whole only after the deadline."""
    time = FakeClock()
    problem = refused(server, tmp_path, time, rate=40_000.0, connections=1, deadline_s=20.0)
    assert problem.reason is Reason.TIMED_OUT
    assert sum(time.sleeps) >= 20.0
    [part] = tmp_path.glob("*.part")
    assert 0 < part.stat().st_size < len(BODY)


def test_the_rate_is_held(server: Files, tmp_path: Path) -> None:
    time = FakeClock()
    fetch(item(server), tmp_path, replace(SETTINGS, rate=4e5, connections=2), time.clock)
    assert sum(time.sleeps) == pytest.approx(len(BODY) / 2e5)


def test_a_full_disk_ends_more_than_the_item(server: Files, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="kept free"):
        fetch(item(server), tmp_path, replace(SETTINGS, keep_free_bytes=1 << 60))


def test_nobody_listens(tmp_path: Path) -> None:
    with file_server() as files:
        address = files.address
    gone = SourceItem("a", f"{address}/a.mp4", "a", "ann", How.FILE)
    with pytest.raises(SourceError, match="given up after 3") as caught:
        fetch(gone, tmp_path, SETTINGS, FakeClock().clock)
    assert caught.value.reason is Reason.DOWNLOAD_FAILED


def test_an_address_that_is_none(tmp_path: Path) -> None:
    bad = SourceItem("a", "http://127.0.0.1:1/a b.mp4", "a", "ann", How.FILE)
    with pytest.raises(SourceError, match="not an address"):
        fetch(bad, tmp_path, SETTINGS, FakeClock().clock)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204 and no file"),
        (answer(BODY, "200 x", "Content-Encoding: gzip"), "Content-Encoding 'gzip'"),
        (answer(b"", "302 x", "Location: http://[bad"), "not an address"),
        (answer(BODY, "206 x", f"Content-Range: bytes 5-9/{len(BODY)}"), "asked for all bytes"),
    ],
)
def test_answers_that_bring_no_file_are_final(reply: bytes, said: str, tmp_path: Path) -> None:
    with raw_server(reply) as server:
        strange = SourceItem("a", f"{server.address}/a.mp4", "a", "ann", How.FILE)
        with pytest.raises(SourceError, match=said) as caught:
            fetch(strange, tmp_path, SETTINGS, FakeClock().clock)
    assert caught.value.reason is Reason.DOWNLOAD_FAILED
    assert len(server.requests) == 1


def test_a_disk_that_does_not_write_fails_the_item_and_is_not_the_networks_fault(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", broken)
    problem = refused(server, tmp_path, FakeClock())
    assert problem.reason is Reason.DOWNLOAD_FAILED
    assert "could not be written (Input/output error)" in problem.detail
    assert len(server.requests) == 1
