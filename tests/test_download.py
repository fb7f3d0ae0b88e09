"""Downloads resume where they broke off and end whole or with one sentence."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.download import download, free_bytes, mirrored
from models.files import ModelFileError
from tests.file_server import Files, file_server

BODY = bytes(range(256)) * 400


@pytest.fixture
def server() -> Iterator[Files]:
    with file_server() as files:
        files.content["w.pt"] = BODY
        yield files


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


def test_mirrors() -> None:
    url = "https://example.org/w.pt"
    assert mirrored(url, "a/w.pt", None) == url
    assert mirrored(url, "a/w x.pt", "http://mirror/base/") == "http://mirror/base/a/w%20x.pt"
    assert mirrored(url, "a/w.pt", "/some/folder") == "file:///some/folder/a/w.pt"


def test_free_space_of_a_folder_to_come(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0
