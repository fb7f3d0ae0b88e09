"""What the services do differently."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.store import drivers
from datasets.store.drivers import code, etag, is_lasting, is_passing, is_refused
from datasets.store.open import open_store
from datasets.store.protocol import Store
from datasets.store.remote import RemoteStore
from tests.support.gcs_server import GcsServer, gcs_server


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsServer]:
    with gcs_server() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        yield server


def test_google_cloud_storage(
    gcs: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "PART", 1 << 20)
    store: Store = open_store("gs://bucket/some/data")
    store.write("index.json", "ü")
    assert gcs.objects == {"some/data/index.json": "ü".encode()}
    assert store.read("index.json") == "ü".encode()
    with pytest.raises(FileNotFoundError):
        store.read("absent")
    assert store.size("absent") is None
    content = os.urandom(1 << 20) * 6
    (tmp_path / "shard").write_bytes(content)
    store.put(tmp_path / "shard", "shards/a b.tar")
    assert not (tmp_path / "shard").exists()
    assert gcs.objects["some/data/shards/a b.tar"] == content
    assert gcs.uploads == {}
    store.link("shards/a b.tar", "shards/b.tar")
    store.delete("shards/a b.tar")
    store.delete("shards/a b.tar")
    assert store.names() == ["index.json", "shards/b.tar"]
    assert store.names("shards") == ["shards/b.tar"]
    with store.open("shards/b.tar") as file:
        file.seek(-1000, os.SEEK_END)
        assert file.read() == content[-1000:]
    assert store.sweep() == []
    with pytest.raises(UserError, match="there is no bucket other for gs://other/x"):
        open_store("gs://other/x")


def test_google_cloud_storage_that_fails(gcs: GcsServer, tmp_path: Path) -> None:
    waits: list[float] = []
    store = RemoteStore("gs://bucket/data", sleep=waits.append)
    gcs.statuses = [503]
    store.write("a", b"content")
    assert gcs.objects["data/a"] == b"content"
    (tmp_path / "shard").write_bytes(b"x" * (6 << 20))
    gcs.statuses = [500]
    store.put(tmp_path / "shard", "b")
    assert len(gcs.objects["data/b"]) == 6 << 20
    gcs.statuses = [403] * 99
    with pytest.raises(UserError, match=r"with these credentials .*: run gcloud auth"):
        store.write("a", b"other")
    gcs.statuses = []
    assert store.read("a") == b"content"


def test_the_tag_of_a_multipart_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "PART", 10)
    assert etag(b"") == hashlib.md5(b"").hexdigest()
    assert etag(b"x" * 19) == hashlib.md5(b"x" * 19).hexdigest()
    parts = b"".join(hashlib.md5(part).digest() for part in (b"x" * 10, b"x" * 10, b"x" * 5))
    (tmp_path / "a").write_bytes(b"x" * 25)
    assert etag(tmp_path / "a") == etag(b"x" * 25) == hashlib.md5(parts).hexdigest() + "-3"


def test_kinds_of_errors() -> None:
    from aiohttp import ClientPayloadError
    from botocore.exceptions import ClientError, EndpointConnectionError

    def answer(name: str) -> OSError:
        error = OSError(name)
        error.__cause__ = ClientError({"Error": {"Code": name}}, "PutObject")
        return error

    assert code(answer("SlowDown")) == "SlowDown"
    for passing in (answer("SlowDown"), ClientPayloadError(), ConnectionResetError()):
        assert is_passing(passing)
        assert not is_lasting(passing)
    assert is_passing(EndpointConnectionError(endpoint_url="x"))
    assert is_lasting(answer("InvalidBucketName"))
    assert is_refused(PermissionError("AccessDenied"))
    assert not is_refused(answer("SlowDown"))
    assert not is_passing(TypeError("a mistake of ours"))
