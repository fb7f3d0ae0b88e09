"""Shards: the same bytes every time, readable by webdataset, described by an index."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.shards.index import FOLDER, read_index, read_samples, verify
from datasets.shards.writer import ShardWriter
from datasets.store.local import LocalStore
from tests.support.shard_files import Sample, write_index, write_shards


def samples(count: int) -> list[Sample]:
    return [
        (f"clip-{number:03d}", {"json": json.dumps({"n": number}).encode(), "bin": bytes(700)})
        for number in range(count)
    ]


def test_bytes_depend_on_samples_alone(tmp_path: Path) -> None:
    first = write_shards(samples(7), tmp_path / "a", "train", max_bytes=6000)
    second = write_shards(samples(7), tmp_path / "b", "train", max_bytes=6000)
    assert first == second
    assert [shard.samples for shard in first] == [2, 2, 2, 1]
    assert [shard.name[:15] for shard in first] == [f"train-000000-0{part}" for part in range(4)]
    for shard in first:
        content = (tmp_path / "a" / FOLDER / shard.name).read_bytes()
        assert content == (tmp_path / "b" / FOLDER / shard.name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard.sha256
        assert len(content) == shard.bytes
    assert not list((tmp_path / "a" / "scratch").iterdir())
    # Nothing of the moment or of who wrote them: two writings within a second would look the same.
    for path in (tmp_path / "a" / FOLDER).glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
                assert (member.uname, member.gname) == ("", "")


def test_plain_webdataset_reads_them(tmp_path: Path) -> None:
    import webdataset

    write_shards(samples(5), tmp_path, "train", max_bytes=6000)
    urls = sorted(str(path) for path in tmp_path.glob("shards/*.tar"))
    assert len(urls) == 3
    loaded = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in loaded] == [key for key, _ in samples(5)]
    assert [sample["json"]["n"] for sample in loaded] == list(range(5))


def test_tar_itself_finds_nothing_wrong(tmp_path: Path) -> None:
    import subprocess

    (shard,) = write_shards(samples(3), tmp_path, "train")
    path = tmp_path / FOLDER / shard.name
    listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    assert listed.stdout.split()[:2] == ["clip-000.bin", "clip-000.json"]


@pytest.mark.parametrize("keys", [["a", "a"], ["a.b"], [""], ["a/b"]])
def test_keys_that_tar_readers_would_confuse_are_refused(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(ValueError, match="key"):
        write_shards([(key, {"x": b""}) for key in keys], tmp_path, "train")


def test_what_is_rolled_back_was_never_there(tmp_path: Path) -> None:
    """Whether it began a split, filled shards or only added to one."""
    store = LocalStore(tmp_path)
    plain, tried = (ShardWriter(tmp_path / "scratch", 3, 6000) for _ in range(2))
    for number, (key, members) in enumerate(samples(9)):
        content = {name: bytes(value) for name, value in members.items()}
        mark = tried.mark()
        for split in ("train", "test"):
            for extra in range(number % 4):
                tried.add(split, f"{key}-{split}-{extra}", content)
        tried.rollback(mark)
        for writer in (plain, tried):
            writer.add("train", key, content)
    expected = plain.finish(store, "plain")
    assert tried.finish(store, "tried") == expected
    assert len(expected) == 5
    for shard in expected:
        assert store.read(f"plain/{shard.info.name}") == store.read(f"tried/{shard.info.name}")
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_was_rolled_back_can_be_tried_again_and_what_was_not_cannot(
    tmp_path: Path, before: int
) -> None:
    """In a shard that was begun before, and in shards that are rolled back as a whole."""
    store, writer = LocalStore(tmp_path), ShardWriter(tmp_path / "scratch", 0, 6000)
    for number in range(before):
        writer.add("train", f"kept{number}", {"bin": bytes(700)})
    mark = writer.mark()
    for _ in range(2):
        for number in range(9):
            writer.add("train", f"tried{number}", {"bin": bytes(700)})
        with pytest.raises(ValueError, match="already used"):
            writer.add("test", "tried3", {"bin": b""})
        writer.rollback(mark)
    for number in range(before):
        with pytest.raises(ValueError, match="already used"):
            writer.add("train", f"kept{number}", {"bin": b""})
    writer.add("train", "tried3", {"bin": b"again"})
    found = [
        key
        for shard in writer.finish(store, "s")
        for key, _ in read_samples(store, f"s/{shard.info.name}")
    ]
    assert found == [*(f"kept{number}" for number in range(before)), "tried3"]


def test_what_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "scratch", 0, 6000)
    for key, members in samples(5):
        writer.add("train", key, members)  # type: ignore[arg-type]
    assert len(list((tmp_path / "scratch").iterdir())) == 3
    writer.discard()
    assert not list((tmp_path / "scratch").iterdir())


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    (shard,) = write_shards(samples(4), tmp_path, "train")
    store = LocalStore(tmp_path)
    assert list(read_samples(store, f"{FOLDER}/{shard.name}")) == samples(4)
    path = tmp_path / FOLDER / shard.name
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cannot be read .* refresh"):
        list(read_samples(store, f"{FOLDER}/{shard.name}"))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_samples(store, "shards/none.tar"))


def test_the_index_names_a_version(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    shards = write_shards(samples(4), tmp_path, "train", max_bytes=6000)
    digest = write_index(store, shards, {"resolution": 64})
    assert write_index(store, shards, {"resolution": 64}) == digest
    assert write_index(store, shards, {"resolution": 128}) != digest
    index = read_index(tmp_path)
    assert index["counts"] == {"train": 4}
    assert verify(tmp_path) == []
    (tmp_path / FOLDER / shards[0].name).write_bytes(b"damaged")
    assert verify(tmp_path) == [shards[0].name]
    (tmp_path / FOLDER / shards[1].name).unlink()
    assert verify(tmp_path) == [shard.name for shard in shards]


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
    store, folder = LocalStore(tmp_path), tmp_path / FOLDER
    write_index(store, write_shards(samples(4), tmp_path, "train"), {})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    newer = write_shards(samples(3), tmp_path, "train")
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert verify(tmp_path) == []
    write_index(store, newer, {})
    assert verify(tmp_path) == []
    assert not before.keys() & {path.name for path in folder.iterdir()}


def test_only_our_own_files_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    others = {"mine.tar", "notes.txt"}
    ours = {"train-000007-00-0123abcd.tar", "train-000007-0123abcd.tar"}
    for name in others | ours:
        (folder / name).write_text("x")
    write_index(LocalStore(tmp_path), write_shards(samples(1), tmp_path, "test"), {})
    names = {path.name for path in folder.iterdir()}
    assert names >= others
    assert len(names) == 3


def test_long_and_foreign_names(tmp_path: Path) -> None:
    key = "ü" * 80
    first = write_shards([(key, {"json": b"{}"})], tmp_path / "a", "train")
    second = write_shards([(key, {"json": b"{}"})], tmp_path / "b", "train")
    assert first == second
    with tarfile.open(tmp_path / "a" / FOLDER / first[0].name) as tar:
        assert tar.getnames() == [f"{key}.json"]
