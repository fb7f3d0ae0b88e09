"""What every store does: a local folder, memory and an S3 server side by side."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.store.local import LocalStore
from datasets.store.open import open_store
from datasets.store.protocol import Store
from tests.support.s3_server import S3Server

KINDS = ("local", "memory", "s3")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "made" / "later")
    if request.param == "memory":
        return open_store(f"memory://{tmp_path.name}-{os.getpid()}/data")
    server: S3Server = request.getfixturevalue("s3_server")
    return open_store(f"s3://{server.bucket()}/some/data/")


def test_what_is_written_is_read(store: Store) -> None:
    store.write("index.json", "ü")
    store.write("a/b/c.bin", b"\0\1")
    store.write("empty", b"")
    assert store.read("index.json") == "ü".encode()
    assert store.read("a/b/c.bin") == b"\0\1"
    assert store.read("empty") == b""
    store.write("index.json", b"new")
    assert store.read("index.json") == b"new"
    assert store.size("index.json") == 3
    assert store.size("empty") == 0


def test_what_is_absent(store: Store) -> None:
    for act in (store.read, store.open, lambda name: store.link(name, "b")):
        with pytest.raises(FileNotFoundError):
            act("a/absent")
    assert store.size("a") is None
    assert store.names() == []
    assert store.names("a/b") == []
    store.delete("a/absent")
    store.write("a/b", b"x")
    assert store.size("a") is None, "a folder is not a file"
    with pytest.raises(FileNotFoundError):
        store.put(Path("/absent/file"), "x")


def test_names_below_a_folder(store: Store) -> None:
    names = ["a", "b/1.json", "b/2/deep file+é.json", "b/2.json", "bb", "c=1/x y"]
    for name in names:
        store.write(name, name)
    assert store.names() == sorted(names)
    assert store.names("b") == store.names("b/") == sorted(names[1:4])
    assert store.names("b/2") == ["b/2/deep file+é.json"]
    assert store.names("a") == [], "a file is not a folder"
    assert store.read("b/2/deep file+é.json").decode() == "b/2/deep file+é.json"
    store.delete("b/1.json")
    store.delete("b/1.json")
    assert store.names("b") == ["b/2.json", "b/2/deep file+é.json"], "no stale listing"


def test_a_finished_file_is_put(store: Store, tmp_path: Path) -> None:
    local = tmp_path / "shard.tar"
    content = os.urandom(1_000_003)
    for turn in (b"", b"again"):
        local.write_bytes(content + turn)
        store.put(local, "shards/train.tar")
        assert not local.exists()
        assert store.read("shards/train.tar") == content + turn
    assert store.names() == ["shards/train.tar"]


def test_a_link_has_the_content_and_its_own_life(store: Store) -> None:
    store.write("a", b"one")
    store.write("x/b", b"two")
    store.link("a", "x/b")
    store.link("a", "a")
    store.link("a", "x/b")
    store.delete("a")
    assert store.read("x/b") == b"one"
    assert store.names() == ["x/b"]


def test_an_open_file_seeks(store: Store) -> None:
    content = os.urandom(300_000)
    store.write("a", content)
    with store.open("a") as file:
        assert file.read(10) == content[:10]
        assert file.seek(200_000) == 200_000
        assert file.read(7) == content[200_000:200_007]
        file.seek(-5, io.SEEK_END)
        assert file.read() == content[-5:]
        assert file.read(1) == b""
        file.seek(1)
        assert file.read() == content[1:]
        assert file.seekable()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "a//b", "a/", "./a"])
def test_names_stay_inside(store: Store, name: str, tmp_path: Path) -> None:
    (tmp_path / "local").write_text("x")
    acts: list[Callable[[], object]] = [
        lambda: store.read(name),
        lambda: store.write(name, b""),
        lambda: store.put(tmp_path / "local", name),
        lambda: store.link("a", name),
        lambda: store.open(name),
        lambda: store.size(name),
        lambda: store.delete(name),
    ]
    for act in acts:
        with pytest.raises(ValueError, match="is not a relative name"):
            act()
    assert (tmp_path / "local").exists()


def test_a_store_travels(store: Store) -> None:
    store.write("a", b"1")
    copy: Store = pickle.loads(pickle.dumps(store))
    assert copy.url == store.url
    assert copy.read("a") == b"1"
    copy.write("b", b"2")
    assert store.read("b") == b"2"
    assert store.sweep() == []


def test_local_paths_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert open_store("some/folder/../data").url == f"{tmp_path}/some/data"
    assert open_store("~/data").url == "/home/somebody/data"
    assert open_store(f"file://{tmp_path}/a%20b").url == f"{tmp_path}/a b"
    assert open_store(tmp_path).url == str(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: choose a folder"):
        open_store("file")
    with pytest.raises(UserError, match="three slashes"):
        open_store("file://host/share")


def test_unfinished_files_are_no_names(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("a", b"")
    (tmp_path / ".a.0123abcd.tmp").write_text("half")
    assert store.names() == ["a"]
    assert store.path("x/y") == tmp_path / "x" / "y"
    assert store.sweep() == [".a.0123abcd.tmp"]
