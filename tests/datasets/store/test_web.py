"""A dataset behind a web server: read whatever the server does, never written."""

import pickle
from collections.abc import Iterator

import pytest

from datasets.errors import UserError
from datasets.store.open import open_store
from datasets.store.web import ATTEMPTS, WebStore
from tests.support.file_server import Files, file_server

CONTENT = bytes(range(256)) * 9000
"""Larger than what is read at once."""


@pytest.fixture
def files() -> Iterator[Files]:
    with file_server() as served:
        served.content = {"d/index.json": b"{}", "d/shards/a%20b.tar": CONTENT}
        yield served


def store(files: Files) -> WebStore:
    found = open_store(f"{files.address}/d/")
    assert isinstance(found, WebStore)
    found._sleep = lambda seconds: None
    return found


def test_whole_files_and_parts_of_them(files: Files) -> None:
    web = store(files)
    assert web.read("index.json") == b"{}"
    assert web.size("shards/a b.tar") == len(CONTENT)
    assert web.size("shards/b.tar") is None
    with web.open("shards/a b.tar") as file:
        assert file.read(10) == CONTENT[:10]
        file.seek(1_500_000)
        assert file.read(7) == CONTENT[1_500_000:1_500_007]
        file.seek(-5, 2)
        assert file.read() == CONTENT[-5:]
        assert file.read() == b""
        file.seek(0)
        assert file.read() == CONTENT
    for act in (web.read, web.open):
        with pytest.raises(FileNotFoundError):
            act("absent")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_breaks_off_is_asked_again(files: Files, ranges: bool) -> None:
    files.ranges = ranges
    web = store(files)
    with web.open("shards/a b.tar") as file:
        files.break_after = [700_000, 100_000]
        files.statuses = [503]
        file.seek(300)
        assert file.read() == CONTENT[300:]
    files.break_after = [10]
    assert web.read("shards/a b.tar") == CONTENT


def test_a_server_that_never_answers_ends_in_a_sentence(files: Files) -> None:
    web = store(files)
    files.statuses = [500] * ATTEMPTS
    with pytest.raises(OSError, match=f"index.json could not be read in {ATTEMPTS} attempts"):
        web.read("index.json")
    files.statuses = [403]
    with pytest.raises(OSError, match=r"could not be read: .*403"):
        web.read("index.json")


def test_nothing_is_written(files: Files) -> None:
    web = store(files)
    for act in (
        lambda: web.write("x", b""),
        lambda: web.delete("index.json"),
        lambda: web.link("index.json", "y"),
        web.names,
        web.sweep,
    ):
        with pytest.raises(UserError, match="can only be read: use a folder"):
            act()


def test_it_travels_to_other_processes(files: Files) -> None:
    web = WebStore(f"{files.address}/d")
    assert pickle.loads(pickle.dumps(web)).read("index.json") == b"{}"
