"""Shards: the same bytes every time, readable by webdataset, described by an index."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.shards import Sample, read_index, verify, write_index, write_shards


def samples(count: int) -> list[Sample]:
    return [
        (f"clip-{number:03d}", {"json": json.dumps({"n": number}).encode(), "bin": bytes(700)})
        for number in range(count)
    ]


def test_order_and_time_of_writing_do_not_matter(tmp_path: Path) -> None:
    first = write_shards(samples(7), tmp_path / "a", "train", max_bytes=6000)
    second = write_shards(reversed(samples(7)), tmp_path / "b", "train", max_bytes=6000)
    assert first == second
    assert [shard.samples for shard in first] == [2, 2, 2, 1]
    for shard in first:
        content = (tmp_path / "a" / shard.name).read_bytes()
        assert content == (tmp_path / "b" / shard.name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard.sha256
        assert len(content) == shard.bytes


def test_files_and_bytes_are_the_same_members(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"hello")
    by_path = write_shards([("k", {"bin": path})], tmp_path / "a", "train")
    assert by_path == write_shards([("k", {"bin": b"hello"})], tmp_path / "b", "train")


def test_plain_webdataset_reads_them(tmp_path: Path) -> None:
    import webdataset

    write_shards(samples(5), tmp_path, "train", max_samples=2)
    urls = sorted(str(path) for path in tmp_path.glob("*.tar"))
    loaded = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in loaded] == [key for key, _ in samples(5)]
    assert [sample["json"]["n"] for sample in loaded] == list(range(5))


@pytest.mark.parametrize("keys", [["a", "a"], ["a.b"], [""], ["a/b"]])
def test_keys_that_tar_readers_would_confuse_are_refused(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(ValueError, match="key"):
        write_shards([(key, {"x": b""}) for key in keys], tmp_path, "train")


def test_the_index_names_a_version(tmp_path: Path) -> None:
    shards = write_shards(samples(4), tmp_path / "shards", "train", max_samples=2)
    digest = write_index(tmp_path, shards, {"resolution": 64})
    assert write_index(tmp_path, shards, {"resolution": 64}) == digest
    assert write_index(tmp_path, shards, {"resolution": 128}) != digest
    index = read_index(tmp_path)
    assert index["counts"] == {"train": 4}
    assert verify(tmp_path) == []
    (tmp_path / "shards" / shards[0].name).write_bytes(b"damaged")
    assert verify(tmp_path) == [shards[0].name]


def test_shards_of_an_older_version_go_only_once_the_new_one_is_there(tmp_path: Path) -> None:
    shards = write_shards(samples(4), tmp_path / "shards", "train", max_samples=1)
    write_index(tmp_path, shards, {})
    fewer = write_shards(samples(2), tmp_path / "shards", "train", max_samples=1)
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 4
    write_index(tmp_path, fewer, {})
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 2


def test_a_folder_that_is_no_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no dataset"):
        read_index(tmp_path)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(UserError, match="refresh"):
        read_index(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_index(tmp_path)


def test_a_new_version_does_not_touch_the_old_one_before_its_index(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_index(tmp_path, write_shards(samples(4), folder, "train"), {})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    newer = write_shards(samples(3), folder, "train")
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert verify(tmp_path) == []
    write_index(tmp_path, newer, {})
    assert verify(tmp_path) == []
    assert not before.keys() & {path.name for path in folder.iterdir()}


def test_only_our_own_files_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("mine.tar", "notes.txt", ".train-000007.tar.tmp", "train-000007-0123abcd.tar"):
        (folder / name).write_text("x")
    write_index(tmp_path, write_shards(samples(1), folder, "test"), {})
    names = {path.name for path in folder.iterdir()}
    assert names >= {"mine.tar", "notes.txt"}
    assert len(names) == 3


def test_a_failed_shard_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_shards([("k", {"a": b"1", "b": tmp_path / "missing"})], tmp_path / "out", "train")
    assert not list((tmp_path / "out").iterdir())


def test_long_and_foreign_names(tmp_path: Path) -> None:
    key = "ü" * 80
    first = write_shards([(key, {"json": b"{}"})], tmp_path / "a", "train")
    second = write_shards([(key, {"json": b"{}"})], tmp_path / "b", "train")
    assert first == second
    with tarfile.open(tmp_path / "a" / first[0].name) as tar:
        assert tar.getnames() == [f"{key}.json"]
