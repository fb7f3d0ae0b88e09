"""Downloads resume where they broke off and end whole or with one sentence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasets.fetch.policy import Clock
from datasets.fetch.slot import Slot
from models.files.errors import ModelFileError
from tasks.weights.download import download, free_bytes
from tests.support.file_server import Files, file_server
from tests.support.raw_server import answer, raw_server

BODY = bytes(range(256)) * 400


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.content["w.pt"] = BODY
        yield files


def refuse_to_wait(_: float) -> None:
    pytest.fail("tried again")


ONCE = Clock(sleep=refuse_to_wait)
"""A lasting failure is refused at once."""


def get(
    server: Files, folder: Path, attempts: int = 3, checked: bool = True, clock: Clock | None = None
) -> bytes:
    slot = Slot(folder, "w")
    download(
        f"{server.address}/w.pt",
        slot,
        attempts=attempts,
        backoff_s=0.0,
        timeout_s=5.0,
        checked=checked,
        clock=clock,
    )
    return slot.part.read_bytes()


def begin(folder: Path, body: bytes, **state: Any) -> Slot:
    """A partial file, as an earlier try left it."""
    slot = Slot(folder, "w")
    slot.part.write_bytes(body)
    if state:
        slot.set_part_state(**state)
    return slot


def test_whole_file_with_progress(server: Files, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    slot = Slot(tmp_path / "deep", "w")
    download(f"{server.address}/w.pt", slot, progress=lambda *state: seen.append(state))
    assert slot.part.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))


def test_breaks_are_resumed_not_restarted(server: Files, tmp_path: Path) -> None:
    server.break_after = [1_000, 2_000, 3_000, 4_000, 5_000]
    assert get(server, tmp_path, attempts=2) == BODY
    asked = [wanted for _, wanted in server.requests]
    assert asked == [None, *(f"bytes={n}-" for n in (1_000, 3_000, 6_000, 10_000, 15_000))]


@pytest.mark.parametrize(
    ("state", "checked", "resumed"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"version": '"1"', "total": len(BODY)}, False, True),
        ({"version": "", "total": None}, True, True),
    ],
)
def test_a_later_call_goes_on_where_its_whole_can_be_vouched_for(
    state: dict[str, Any], checked: bool, resumed: bool, server: Files, tmp_path: Path
) -> None:
    begin(tmp_path, BODY[:5_000], **state)
    assert get(server, tmp_path, checked=checked) == BODY
    assert server.requests == [("w.pt", "bytes=5000-" if resumed else None)]


def test_a_server_that_names_no_version_is_gone_on_with_when_checked(
    server: Files, tmp_path: Path
) -> None:
    server.etag = ""
    server.break_after = [1_000]
    assert get(server, tmp_path) == BODY
    assert [asked for _, asked in server.requests] == [None, "bytes=1000-"]


def test_a_server_without_ranges_starts_over(server: Files, tmp_path: Path) -> None:
    server.ranges = False
    server.break_after = [50_000]
    assert get(server, tmp_path) == BODY


def test_a_file_changed_meanwhile_starts_over(server: Files, tmp_path: Path) -> None:
    begin(tmp_path, b"old" * 1_000, version='"0"', total=len(BODY))
    assert get(server, tmp_path) == BODY


def test_a_longer_remnant_starts_over(server: Files, tmp_path: Path) -> None:
    begin(tmp_path, bytes(len(BODY) + 1))
    assert get(server, tmp_path) == BODY


def test_passing_errors_are_tried_again(server: Files, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert get(server, tmp_path) == BODY


def test_lasting_errors_end_in_a_sentence(server: Files, tmp_path: Path) -> None:
    server.statuses = [500] * 9
    with pytest.raises(ModelFileError, match=r"HTTP 500.*after 3 attempts"):
        get(server, tmp_path)
    assert len(server.requests) == 3
    server.break_after = [0] * 9
    server.statuses = []
    with pytest.raises(ModelFileError, match="after 3 attempts"):
        get(server, tmp_path)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusals_are_not_repeated(status: int, server: Files, tmp_path: Path) -> None:
    server.statuses = [status]
    with pytest.raises(ModelFileError, match=f"HTTP {status} .*by hand or set WEIGHTS_MIRROR"):
        get(server, tmp_path, clock=ONCE)
    assert len(server.requests) == 1
    assert not (tmp_path / "w.part").exists()


def test_nobody_waits_for_hours_because_a_server_says_so(server: Files, tmp_path: Path) -> None:
    server.statuses, server.retry_after = [429], "3600"
    with pytest.raises(ModelFileError, match=r"HTTP 429.* asks to retry in 3600 s"):
        get(server, tmp_path, clock=ONCE)


def test_a_web_page_is_not_a_file(server: Files, tmp_path: Path) -> None:
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(ModelFileError, match="web page"):
        get(server, tmp_path, clock=ONCE)


def test_nobody_there(tmp_path: Path) -> None:
    with file_server() as files:
        pass
    with pytest.raises(ModelFileError, match=r"refused; given up after 1 attempts"):
        get(files, tmp_path, attempts=1)


def test_free_space_of_a_folder_to_come(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0


def test_a_rest_that_starts_elsewhere_is_not_appended(tmp_path: Path) -> None:
    slot = begin(tmp_path, BODY[:1_000])
    wrong = answer(BODY[2_000:], "206 x", f"Content-Range: bytes 2000-102399/{len(BODY)}")
    with raw_server(wrong, answer(BODY)) as server:
        download(f"{server.address}/w.pt", slot, attempts=2, backoff_s=0.0, checked=True)
    assert slot.part.read_bytes() == BODY
    assert [b"range: bytes=1000-" in head.lower() for head in server.requests] == [True, False]


@pytest.mark.parametrize("header", ["Content-Range: bytes 5-9/10", "X: y", "Content-Range: lines"])
def test_a_part_nobody_asked_for_is_refused(header: str, tmp_path: Path) -> None:
    slot = Slot(tmp_path, "w")
    with (
        raw_server(answer(BODY, "206 x", header)) as server,
        pytest.raises(ModelFileError, match=r"for all bytes, it answered with Content-Range"),
    ):
        download(f"{server.address}/w.pt", slot, clock=ONCE)
    assert not slot.part.exists()


def test_the_length_of_the_whole_is_known_from_the_range(tmp_path: Path) -> None:
    slot = begin(tmp_path, BODY[:1_000])
    ranges = [f"Content-Range: bytes {n}-{n + 999}/{len(BODY)}" for n in (1_000, 2_000)]
    short = answer(BODY[1_000:2_000], "206 x", ranges[0], length=False)
    rest = answer(BODY[2_000:], "206 x", ranges[1], length=False)
    with raw_server(short, rest) as server:
        download(f"{server.address}/w.pt", slot, attempts=2, backoff_s=0.0, checked=True)
    assert slot.part.read_bytes() == BODY


def test_the_file_is_asked_for_as_it_is(tmp_path: Path) -> None:
    slot = Slot(tmp_path, "w")
    with raw_server(answer(BODY, "200 x", "Content-Encoding: gzip"), answer(BODY)) as server:
        with pytest.raises(ModelFileError, match="Content-Encoding 'gzip', although"):
            download(f"{server.address}/w.pt", slot, clock=ONCE)
        assert not slot.part.exists()
        download(f"{server.address}/w.pt", slot, clock=ONCE)
    assert all(b"accept-encoding: identity" in head.lower() for head in server.requests)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204 and no file"),
        (answer(b"x", "200 x", "Content-Length: abc", length=False), "Content-Length 'abc' came"),
        (answer(b"", "302 x", "Location: http://[bad"), "not an address"),
        (answer(b"", "302 x", "Location: http://host:port/x"), "not an address"),
        (answer(b"", "302 x", "Location: s3://bucket/x"), "are not allowed"),
    ],
)
def test_answers_that_no_second_try_cures(reply: bytes, message: str, tmp_path: Path) -> None:
    slot = Slot(tmp_path, "w")
    with raw_server(reply) as server, pytest.raises(ModelFileError, match=message):
        download(f"{server.address}/w.pt", slot, clock=ONCE)
    assert len(server.requests) == 1
    assert not slot.part.exists()


@pytest.mark.parametrize("url", ["s3://bucket/w.pt", "bogus://x/w.pt", "host:80/w.pt", "w.pt"])
def test_other_schemes_are_refused_at_once(url: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="but expected is http, https, file"):
        download(url, Slot(tmp_path, "w"), clock=ONCE)


def test_secrets_are_for_one_server_alone(tmp_path: Path) -> None:
    with raw_server(answer(BODY)) as other:
        leads = answer(b"", "302 x", f"Location: {other.address}/w.pt")
        with raw_server(leads) as server:
            secrets = {"Authorization": "Bearer secret"}
            download(f"{server.address}/w.pt", Slot(tmp_path, "w"), secrets=secrets, clock=ONCE)
    assert b"Authorization: Bearer secret" in server.requests[0]
    assert b"secret" not in other.requests[0]
    assert (tmp_path / "w.part").read_bytes() == BODY


def test_a_file_of_this_machine_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "wé 1.pt"
    source.write_bytes(BODY)
    seen: list[tuple[int, int | None]] = []
    slot = begin(tmp_path, b"old")
    download(source.as_uri(), slot, progress=lambda *state: seen.append(state))
    assert slot.part.read_bytes() == BODY
    assert seen == [(len(BODY), len(BODY))]


def test_a_file_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    slot = Slot(tmp_path, "w")
    with pytest.raises(ModelFileError, match=r"w\.pt is not there: put the file"):
        download((tmp_path / "w.pt").as_uri(), slot)
    with pytest.raises(ModelFileError, match=r"not there, and .*none is not a folder"):
        download((tmp_path / "none" / "w.pt").as_uri(), slot)
    with pytest.raises(ModelFileError, match="is not a file: put"):
        download(tmp_path.as_uri(), slot)


def test_faults_of_the_disk_are_not_the_networks(
    server: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.part").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for folder, reason in ((tmp_path, "Is a directory"), (tmp_path / "file", "")):
        with pytest.raises(ModelFileError, match=f"could not be written .*{reason}.*: check its"):
            get(server, folder, clock=ONCE)
    assert not server.requests

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(ModelFileError, match=r"could not be written \(Input/output error\)"):
        get(server, tmp_path / "other", clock=ONCE)
