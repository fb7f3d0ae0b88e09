"""Downloads resume where they broke off and end whole or with one sentence."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture
def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lasts is refused at once."""
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("tried again"))


def get(server: Files, part: Path, attempts: int = 3) -> None:
    download(f"{server.address}/w.pt", part, attempts=attempts, backoff_s=0.0, timeout_s=5.0)


def test_whole_file_with_progress(server: Files, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    part = tmp_path / "deep" / "w.part"
    download(f"{server.address}/w.pt", part, progress=lambda *state: seen.append(state))
    assert part.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert list(part.parent.iterdir()) == [part]


def test_breaks_are_resumed_not_restarted(server: Files, tmp_path: Path) -> None:
    server.break_after = [1_000, 2_000, 3_000, 4_000, 5_000]
    get(server, tmp_path / "w.part", attempts=2)
    assert (tmp_path / "w.part").read_bytes() == BODY
    asked = [wanted for _, wanted in server.requests]
    assert asked == [None, *(f"bytes={n}-" for n in (1_000, 3_000, 6_000, 10_000, 15_000))]


def test_a_later_call_goes_on(server: Files, tmp_path: Path) -> None:
    server.break_after = [1_000]
    server.statuses = []
    part = tmp_path / "w.part"
    part.write_bytes(BODY[:5_000])
    get(server, part)
    assert part.read_bytes() == BODY
    assert server.requests[0][1] == "bytes=5000-"


def test_a_server_without_ranges_starts_over(server: Files, tmp_path: Path) -> None:
    server.ranges = False
    server.break_after = [50_000]
    get(server, tmp_path / "w.part")
    assert (tmp_path / "w.part").read_bytes() == BODY


def test_a_file_changed_meanwhile_starts_over(server: Files, tmp_path: Path) -> None:
    part = tmp_path / "w.part"
    part.write_bytes(b"old" * 1_000)
    (tmp_path / "w.part.etag").write_text('"0"')
    get(server, part)
    assert part.read_bytes() == BODY


def test_a_longer_remnant_starts_over(server: Files, tmp_path: Path) -> None:
    part = tmp_path / "w.part"
    part.write_bytes(bytes(len(BODY) + 1))
    get(server, part)
    assert part.read_bytes() == BODY


def test_passing_errors_are_tried_again(server: Files, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    get(server, tmp_path / "w.part")
    assert (tmp_path / "w.part").read_bytes() == BODY


def test_lasting_errors_end_in_a_sentence(server: Files, tmp_path: Path) -> None:
    server.statuses = [500] * 9
    with pytest.raises(ModelFileError, match="after 3 tries"):
        get(server, tmp_path / "w.part")
    assert len(server.requests) == 3
    server.break_after = [0] * 9
    server.statuses = []
    with pytest.raises(ModelFileError, match="after 3 tries"):
        get(server, tmp_path / "w.part")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusals_are_not_repeated(status: int, server: Files, tmp_path: Path) -> None:
    server.statuses = [status]
    with pytest.raises(ModelFileError, match=f"refused with HTTP {status}"):
        get(server, tmp_path / "w.part")
    assert len(server.requests) == 1
    assert not (tmp_path / "w.part").exists()


def test_a_web_page_is_not_a_file(server: Files, tmp_path: Path) -> None:
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(ModelFileError, match="web page"):
        get(server, tmp_path / "w.part")


def test_nobody_there(tmp_path: Path) -> None:
    with file_server() as files:
        address = files.address
    with pytest.raises(ModelFileError, match=r"after 1 tries .*refused"):
        download(f"{address}/w.pt", tmp_path / "w.part", attempts=1, backoff_s=0.0)


def test_free_space_of_a_folder_to_come(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0


def test_a_rest_that_starts_elsewhere_is_not_appended(tmp_path: Path) -> None:
    part = tmp_path / "w.part"
    part.write_bytes(BODY[:1_000])
    wrong = answer(BODY[2_000:], "206 x", f"Content-Range: bytes 2000-102399/{len(BODY)}")
    with raw_server(wrong, answer(BODY)) as server:
        download(f"{server.address}/w.pt", part, attempts=2, backoff_s=0.0)
    assert part.read_bytes() == BODY
    assert [b"range: bytes=1000-" in head.lower() for head in server.requests] == [True, False]


@pytest.mark.parametrize("header", ["Content-Range: bytes 5-9/10", "X: y", "Content-Range: lines"])
def test_a_part_nobody_asked_for_is_refused(
    header: str, tmp_path: Path, no_second_try: None
) -> None:
    part = tmp_path / "w.part"
    with (
        raw_server(answer(BODY, "206 x", header)) as server,
        pytest.raises(ModelFileError, match=r"from 0 on, it answered with Content-Range"),
    ):
        download(f"{server.address}/w.pt", part)
    assert not part.exists()


def test_the_length_of_the_whole_is_known_from_the_range(tmp_path: Path) -> None:
    part = tmp_path / "w.part"
    part.write_bytes(BODY[:1_000])
    ranges = [f"Content-Range: bytes {n}-{n + 999}/{len(BODY)}" for n in (1_000, 2_000)]
    short = answer(BODY[1_000:2_000], "206 x", ranges[0], length=False)
    rest = answer(BODY[2_000:], "206 x", ranges[1], length=False)
    with raw_server(short, rest) as server:
        download(f"{server.address}/w.pt", part, attempts=1, backoff_s=0.0)
    assert part.read_bytes() == BODY


def test_the_file_is_asked_for_as_it_is(tmp_path: Path, no_second_try: None) -> None:
    part = tmp_path / "w.part"
    with raw_server(answer(BODY, "200 x", "Content-Encoding: gzip"), answer(BODY)) as server:
        with pytest.raises(ModelFileError, match="Content-Encoding 'gzip', although"):
            download(f"{server.address}/w.pt", part)
        assert not part.exists()
        download(f"{server.address}/w.pt", part)
    assert all(b"accept-encoding: identity" in head.lower() for head in server.requests)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204 and no file"),
        (answer(b"x", "200 x", "Content-Length: abc", length=False), "Content-Length 'abc' where"),
        (answer(b"", "302 x", "Location: http://[bad"), "leads to a malformed address"),
        (answer(b"", "302 x", "Location: http://host:port/x"), "leads to a malformed address"),
        (answer(b"", "302 x", "Location: s3://bucket/x"), "refused with HTTP 302"),
    ],
)
def test_answers_that_no_second_try_cures(
    reply: bytes, message: str, tmp_path: Path, no_second_try: None
) -> None:
    part = tmp_path / "w.part"
    with raw_server(reply) as server, pytest.raises(ModelFileError, match=message):
        download(f"{server.address}/w.pt", part)
    assert len(server.requests) == 1
    assert not part.exists()


@pytest.mark.parametrize("url", ["s3://bucket/w.pt", "bogus://x/w.pt", "host:80/w.pt", "w.pt"])
def test_other_schemes_are_refused_at_once(url: str, tmp_path: Path, no_second_try: None) -> None:
    with pytest.raises(ModelFileError, match="what is taken is http, https, file"):
        download(url, tmp_path / "w.part")


def test_a_file_of_this_machine_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "wé 1.pt"
    source.write_bytes(BODY)
    seen: list[tuple[int, int | None]] = []
    part = tmp_path / "w.part"
    part.write_bytes(b"old")
    download(source.as_uri(), part, progress=lambda *state: seen.append(state))
    assert part.read_bytes() == BODY
    assert seen == [(len(BODY), len(BODY))]


def test_a_file_that_is_not_there_is_said_at_once(tmp_path: Path, no_second_try: None) -> None:
    part = tmp_path / "w.part"
    with pytest.raises(ModelFileError, match=r"w\.pt is not there: put the file"):
        download((tmp_path / "w.pt").as_uri(), part)
    with pytest.raises(ModelFileError, match=r"not there, and .*none is no folder"):
        download((tmp_path / "none" / "w.pt").as_uri(), part)
    with pytest.raises(ModelFileError, match="is no file: put"):
        download(tmp_path.as_uri(), part)


def test_faults_of_the_disk_are_not_the_networks(
    server: Files, tmp_path: Path, no_second_try: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.part").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for part, reason in (("w.part", "Is a directory"), ("file/w.part", "")):
        with pytest.raises(ModelFileError, match=f"could not be written .*{reason}.*: see to"):
            get(server, tmp_path / part)
    assert not server.requests

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(ModelFileError, match=r"could not be written \(Input/output error\)"):
        get(server, tmp_path / "other.part")
