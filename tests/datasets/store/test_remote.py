"""Object storage that fails: all arrives whole, or one error says why not."""

import multiprocessing
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.store import drivers
from datasets.store.open import open_store
from datasets.store.remote import RemoteStore
from tests.support.s3_server import FailingProxy, Fault, S3Server, failing_proxy

ROOT = Path(__file__).resolve().parents[3]
FAULTS: tuple[Fault, ...] = ("500", "503", "drop", "lost", "half")
SLOW_FAULTS: tuple[Fault, ...] = ("stall", "choke")


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingProxy]:
    with failing_proxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        yield proxy


class Waits:
    """Notes the waits instead of waiting."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def store_at(bucket: str, waits: Waits, attempts: int = 5) -> RemoteStore:
    return RemoteStore(f"s3://{bucket}/data", attempts=attempts, sleep=waits)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_succeeds_after_faults(
    s3_server: S3Server, proxy: FailingProxy, fault: Fault
) -> None:
    bucket, waits = s3_server.bucket(), Waits()
    store = store_at(bucket, waits)
    store.write("ready", b"")
    proxy.faults = [fault] * 3
    store.write("ledger", b"rows" * 10_000)
    assert s3_server.objects(bucket)["data/ledger"] == b"rows" * 10_000
    assert proxy.faults == []
    assert proxy.failed() == 3


def test_waits_grow_and_are_bounded(s3_server: S3Server, proxy: FailingProxy) -> None:
    waits = Waits()
    store = store_at(s3_server.bucket(), waits, attempts=8)
    proxy.faults = ["503"] * 7
    store.write("a", b"x")
    assert len(waits.seconds) == 7
    for wait, longest in zip(waits.seconds, (1, 2, 4, 8, 16, 30, 30), strict=True):
        assert longest / 2 <= wait <= longest


@pytest.mark.parametrize("fault", FAULTS)
def test_a_multipart_upload_succeeds_after_faults(
    s3_server: S3Server,
    proxy: FailingProxy,
    fault: Fault,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drivers, "PART", 5 << 20)
    bucket = s3_server.bucket()
    store = store_at(bucket, Waits())
    content = os.urandom(1 << 20) * 10 + b"the end"
    (tmp_path / "shard").write_bytes(content)
    proxy.matches = lambda method, path: "uploadId" in path and method in ("PUT", "POST")
    proxy.faults = [fault, fault]
    store.put(tmp_path / "shard", "shards/a.tar")
    assert proxy.failed() == 2
    assert s3_server.objects(bucket) == {"data/shards/a.tar": content}
    assert s3_server.unfinished(bucket) == []
    assert not (tmp_path / "shard").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_completing_an_upload_may_fail(
    s3_server: S3Server,
    proxy: FailingProxy,
    fault: Fault,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drivers, "PART", 5 << 20)
    bucket = s3_server.bucket()
    content = os.urandom(1 << 20) * 11
    (tmp_path / "shard").write_bytes(content)
    proxy.matches = lambda method, path: method == "POST" and "uploadId=" in path
    proxy.faults = [fault]
    store_at(bucket, Waits()).put(tmp_path / "shard", "a.tar")
    assert proxy.failed() == 1
    assert s3_server.objects(bucket) == {"data/a.tar": content}
    assert s3_server.unfinished(bucket) == []


@pytest.mark.parametrize("size", [1000, 11 << 20])
@pytest.mark.parametrize("fault", SLOW_FAULTS)
def test_a_service_that_hangs_is_asked_again(
    s3_server: S3Server,
    proxy: FailingProxy,
    fault: Fault,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drivers, "PART", 5 << 20)
    monkeypatch.setattr(drivers, "READ_TIMEOUT_S", 4.0)
    monkeypatch.setattr(drivers, "SLOWEST", 10 << 20)
    bucket = s3_server.bucket()
    (tmp_path / "shard").write_bytes(b"x" * size)
    # Attempts to spare, since a busy machine may exceed the short limit too.
    options = {"config_kwargs": {"read_timeout": 4.0}}
    store = RemoteStore(f"s3://{bucket}/data", options, attempts=20, sleep=Waits())
    proxy.faults = [fault]
    store.put(tmp_path / "shard", "a.tar")
    assert s3_server.objects(bucket) == {"data/a.tar": b"x" * size}
    assert s3_server.unfinished(bucket) == []
    proxy.matches = lambda method, path: method == "GET"
    proxy.faults = [fault]
    assert store.size("a.tar") == size
    assert store.read("a.tar") == b"x" * size
    assert proxy.faults == []


@pytest.mark.parametrize("size", [1000, 11 << 20])
def test_a_lasting_fault_is_one_error_and_leaves_nothing(
    s3_server: S3Server,
    proxy: FailingProxy,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drivers, "PART", 5 << 20)
    bucket, waits = s3_server.bucket(), Waits()
    (tmp_path / "shard").write_bytes(b"x" * size)
    proxy.always = "500"
    with pytest.raises(OSError, match=r"s3://.*/data/a.tar could not be written in 3 attempts: "):
        store_at(bucket, waits, attempts=3).put(tmp_path / "shard", "a.tar")
    assert len(waits.seconds) == 2
    assert (tmp_path / "shard").stat().st_size == size, "what did not arrive stays here"
    assert s3_server.objects(bucket) == {}
    assert s3_server.unfinished(bucket) == []


def test_the_old_object_stays_until_the_new_one_is_whole(
    s3_server: S3Server, proxy: FailingProxy
) -> None:
    bucket = s3_server.bucket()
    store = store_at(bucket, Waits(), attempts=2)
    store.write("index.json", b"old")
    proxy.always = "503"
    with pytest.raises(OSError, match="in 2 attempts: Please reduce your request rate"):
        store.write("index.json", b"new")
    proxy.always = None
    assert store.read("index.json") == b"old"


@pytest.mark.parametrize("fault", FAULTS)
def test_reads_listings_and_links_succeed_after_faults(
    s3_server: S3Server, proxy: FailingProxy, fault: Fault
) -> None:
    store = store_at(s3_server.bucket(), Waits())
    content = os.urandom(200_000)
    store.write("a", content)
    proxy.matches = lambda method, path: True
    proxy.faults = [fault]
    assert store.read("a") == content
    proxy.faults = [fault]
    assert store.names() == ["a"]
    proxy.faults = [fault]
    store.link("a", "b")
    proxy.faults = [fault]
    assert store.size("b") == len(content)
    with store.open("b") as file:
        proxy.faults = [fault]
        file.seek(100_000)
        assert file.read(1000) == content[100_000:101_000]
    proxy.faults = [fault]
    store.delete("b")
    assert proxy.faults == []
    assert store.names() == ["a"]


@pytest.mark.parametrize("size", [1000, 11 << 20])
def test_what_arrived_damaged_is_sent_again(
    s3_server: S3Server,
    proxy: FailingProxy,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drivers, "PART", 5 << 20)
    bucket, waits = s3_server.bucket(), Waits()
    store = store_at(bucket, waits)
    (tmp_path / "shard").write_bytes(b"x" * size)
    proxy.faults = ["damage"]
    store.put(tmp_path / "shard", "a.tar")
    proxy.faults = ["damage"]
    store.write("a", b"good")
    assert len(waits.seconds) == 2
    assert s3_server.objects(bucket) == {"data/a": b"good", "data/a.tar": b"x" * size}


def test_only_a_needed_range_is_fetched(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.bucket()
    store = RemoteStore(f"s3://{bucket}")
    (tmp_path / "clip").write_bytes(os.urandom(1000))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(12):
            tar.add(tmp_path / "clip", f"{number}.mp4")
    store.put(tmp_path / "a.tar", "a.tar")
    with store.open("a.tar") as file, tarfile.open(fileobj=file) as tar:
        member = tar.extractfile("7.mp4")
        assert member
        assert member.read() == (tmp_path / "clip").read_bytes()


def test_threads_share_a_store(s3_server: S3Server) -> None:
    store = RemoteStore(f"s3://{s3_server.bucket()}/x")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.write(f"{number:03d}", str(number)), range(64)))
        read = list(pool.map(store.read, store.names()))
    assert read == [str(number).encode() for number in range(64)]


def _write_in_child(store: RemoteStore) -> None:
    store.write("child", b"2")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_used_store_works_in_a_child(s3_server: S3Server, method: str) -> None:
    store = RemoteStore(f"s3://{s3_server.bucket()}/x")
    store.write("parent", b"1")
    with multiprocessing.get_context(method).Pool(1) as pool:
        pool.apply_async(_write_in_child, (store,)).get(60)
    assert store.names() == ["child", "parent"]


def test_abandoned_uploads_are_swept(s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    for key in ("data/a.tar", "database/b.tar"):
        s3_server.client.create_multipart_upload(Bucket=bucket, Key=key)
    # The server says that every upload is of the year 2010.
    assert RemoteStore(f"s3://{bucket}/data").sweep() == ["a.tar"]
    assert s3_server.unfinished(bucket) == ["database/b.tar"]


def test_a_console_folder_is_no_file(s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    s3_server.client.put_object(Bucket=bucket, Key="data/shards/", Body=b"")
    store = RemoteStore(f"s3://{bucket}/data")
    assert store.names() == []
    store.write("shards/a", b"")
    assert store.names() == ["shards/a"]


def test_foreseeable_mistakes_are_one_sentence(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url, text in (
        ("ftp://host/a", "has the scheme ftp, which is unknown"),
        ("s3://", "is not a place in a bucket: use s3://BUCKET/FOLDER"),
        ("gs://bucket//a", "is not a place in a bucket: use gs://BUCKET/FOLDER"),
        ("s3://bucket/../a", "is not a place in a bucket"),
        ("s3://no-such-bucket/a", "there is no bucket no-such-bucket for s3://no-such-bucket/a"),
        ("s3://a_b*c/d", "s3://a_b*c/d could not be opened: Parameter validation failed"),
    ):
        with pytest.raises(UserError) as caught:
            open_store(url)
        assert text in str(caught.value)
        assert "\n" not in str(caught.value)
    url = f"s3://{s3_server.bucket()}/a"
    monkeypatch.setattr(drivers.S3Driver, "connect", _no_package)
    monkeypatch.setenv("AWS_REGION", "elsewhere")
    with pytest.raises(UserError, match="needs the package s3fs: pip install s3fs"):
        open_store(url)


def _no_package(driver: drivers.S3Driver) -> None:
    raise ImportError("s3fs")


def test_missing_and_refused_credentials(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{s3_server.bucket()}/a"
    store = open_store(url)
    monkeypatch.setattr(drivers.S3Driver, "write", _refused)
    with pytest.raises(UserError, match=r"a/b could not be written with these credentials \(no\)"):
        store.write("b", b"")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(UserError, match="without credentials: set AWS_ACCESS_KEY_ID"):
        open_store(url)


def _refused(*args: object) -> None:
    raise PermissionError("no")


def test_a_dead_endpoint_is_one_sentence(s3_server: S3Server) -> None:
    script = (
        "from datasets.store.remote import RemoteStore\n"
        "from datasets.errors import UserError\n"
        "try: RemoteStore('s3://b/a', sleep=print).check()\n"
        "except UserError as error: print(error)"
    )
    env = os.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == "", "no complaint about open connections at exit"
    assert "s3://b/a could not be opened in 5 attempts: " in result.stdout.splitlines()[-1]
    assert "127.0.0.1:9" in result.stdout.splitlines()[-1]
