"""A dataset in object storage, as a local folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.shards.index import read_index, verify
from datasets.shards.local_copy import local_dataset
from datasets.shards.writer import ShardInfo
from datasets.store.local import LocalStore
from datasets.store.open import open_store
from datasets.store.remote import RemoteStore
from tests.support.s3_server import S3Server, failing_proxy
from tests.support.shard_files import write_index, write_shards

ROOT = Path(__file__).resolve().parents[3]


def dataset(folder: Path, samples: int = 30, title: str = "one") -> list[ShardInfo]:
    content = [(f"clip{i:03d}", {"bin": bytes([i]) * 5000}) for i in range(samples)]
    shards = write_shards(content, folder, "train", max_samples=10)
    write_index(LocalStore(folder), shards, {"title": title})
    return shards


def upload(folder: Path, url: str) -> None:
    store = open_store(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.write(path.relative_to(folder).as_posix(), path.read_bytes())


class Counting(RemoteStore):
    """Notes which shards are opened, and stops at one that is asked for."""

    def __init__(self, url: str, stop_at: str = "") -> None:
        super().__init__(url)
        self.opened: list[str] = []
        self.stop_at = stop_at

    def read_range(self, name: str, start: int, end: int) -> bytes:
        if self.stop_at and self.stop_at in name:
            raise KeyboardInterrupt
        if start == 0:
            self.opened.append(name)
        return super().read_range(name, start, end)


def test_a_local_dataset_is_itself(tmp_path: Path) -> None:
    assert local_dataset(tmp_path, tmp_path / "cache") == tmp_path
    assert local_dataset(f"file://{tmp_path}", tmp_path / "cache") == tmp_path
    assert not (tmp_path / "cache").exists()


def test_a_dataset_on_s3_is_fetched_once(s3_server: S3Server, tmp_path: Path) -> None:
    shards = dataset(tmp_path / "made")
    url = f"s3://{s3_server.bucket()}/data"
    upload(tmp_path / "made", url)
    seen: list[tuple[int, int | None]] = []

    def progress(here: int, total: int | None, note: str = "") -> None:
        seen.append((here, total))

    folder = local_dataset(url, tmp_path / "cache", progress)
    assert folder == tmp_path / "cache" / read_index(tmp_path / "made")["digest"]
    assert verify(folder) == []
    assert (folder / "index.json").read_bytes() == (tmp_path / "made/index.json").read_bytes()
    total = sum(shard.bytes for shard in shards)
    assert [here for here, _ in seen] == sorted(here for here, _ in seen)
    assert (seen[0], seen[-1]) == ((0, total), (total, total))
    store = Counting(url)
    assert local_dataset(url, tmp_path / "cache", store=store) == folder
    assert store.opened == []


def test_an_interrupted_copy_goes_on(tmp_path: Path) -> None:
    shards = dataset(tmp_path / "made")
    url = f"memory://{tmp_path.name}-resume"
    upload(tmp_path / "made", url)
    with pytest.raises(KeyboardInterrupt):
        local_dataset(url, tmp_path / "cache", store=Counting(url, stop_at=shards[2].name))
    (folder,) = (tmp_path / "cache").iterdir()
    assert not (folder / "index.json").exists(), "an unfinished copy is not a dataset"
    assert not list((folder / "shards").glob(".*"))
    kept = {path.name for path in (folder / "shards").iterdir()}
    store = Counting(url)
    assert local_dataset(url, tmp_path / "cache", store=store) == folder
    assert {Path(name).name for name in store.opened} == {each.name for each in shards} - kept
    assert verify(folder) == []


def test_a_killed_copy_goes_on(s3_server: S3Server, tmp_path: Path) -> None:
    dataset(tmp_path / "made", samples=60)
    url = f"s3://{s3_server.bucket()}/data"
    upload(tmp_path / "made", url)
    script = (
        "import os, sys, pathlib; from datasets.shards.local_copy import local_dataset\n"
        "def progress(here, all):\n"
        "    if here > all // 2: os._exit(9)\n"
        "local_dataset(sys.argv[1], pathlib.Path(sys.argv[2]), progress)"
    )
    cache = tmp_path / "cache"
    result = subprocess.run([sys.executable, "-c", script, url, str(cache)], cwd=ROOT, check=False)
    assert result.returncode == 9
    assert not list(cache.glob("*/index.json"))
    assert verify(local_dataset(url, cache)) == []


def test_shards_of_another_version_are_not_fetched_again(tmp_path: Path) -> None:
    old = dataset(tmp_path / "made", samples=20)
    url = f"memory://{tmp_path.name}-versions"
    upload(tmp_path / "made", url)
    first = local_dataset(url, tmp_path / "cache")
    new = dataset(tmp_path / "made", samples=30)
    upload(tmp_path / "made", url)
    store = Counting(url)
    second = local_dataset(url, tmp_path / "cache", store=store)
    assert second != first
    assert store.opened == [f"shards/{new[2].name}"]
    assert [each.name for each in new[:2]] == [each.name for each in old]
    assert verify(first) == verify(second) == []


def test_faults_on_the_way(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(tmp_path / "made")
    url = f"s3://{s3_server.bucket()}/data"
    upload(tmp_path / "made", url)
    with failing_proxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        proxy.matches = lambda method, path: ".tar" in path
        proxy.faults = ["500", "half", "drop", "half", "503"]
        store = RemoteStore(url, sleep=_no_wait)
        assert verify(local_dataset(url, tmp_path / "cache", store=store)) == []
        assert proxy.failed() == 5


def _no_wait(seconds: float) -> None:
    pass


def test_damaged_and_missing_shards(tmp_path: Path) -> None:
    shards = dataset(tmp_path / "made")
    url = f"memory://{tmp_path.name}-damaged"
    upload(tmp_path / "made", url)
    store = open_store(url)
    name = f"shards/{shards[1].name}"
    content = store.read(name)
    store.write(name, content[:-1] + b"x")
    with pytest.raises(UserError, match="differs from the index: the dataset is damaged"):
        local_dataset(url, tmp_path / "cache")
    store.delete(name)
    with pytest.raises(UserError, match="is missing: if the dataset was refreshed just now"):
        local_dataset(url, tmp_path / "cache")
    store.write(name, content)
    assert verify(local_dataset(url, tmp_path / "cache")) == []


def test_what_is_no_dataset(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}-none"
    with pytest.raises(UserError, match=r"there is no dataset in memory://.*make one with"):
        local_dataset(url, tmp_path / "cache")
    dataset(tmp_path / "made")
    good = json.loads((tmp_path / "made/index.json").read_text())
    changes: list[dict[str, object]] = [
        {"version": 0},
        {"digest": "../../etc"},
        {"shards": [{"name": "../x.tar", "sha256": "0" * 64}]},
        {"shards": [{}]},
        {"shards": None},
    ]
    for change in changes:
        open_store(url).write("index.json", json.dumps(good | change))
        with pytest.raises(UserError, match="is not a dataset index of version"):
            local_dataset(url, tmp_path / "cache")
    open_store(url).write("index.json", "[")
    with pytest.raises(UserError, match="is not a dataset index of version"):
        local_dataset(url, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
