"""Flows read datasets from wherever they were published."""

import json
from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.store.open import open_store
from flows.support import dataset_copy
from tests.support.small_dataset import write_small_dataset


def test_a_remote_dataset_is_fetched_and_a_local_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_copy, "CACHE", tmp_path / "cache")
    local = write_small_dataset(tmp_path / "made", num_frames=10)
    assert dataset_copy.local_copy(str(local)) == local.resolve()
    assert not (tmp_path / "cache").exists()
    url = f"memory://{tmp_path.name}"
    store = open_store(url)
    for path in [local / "index.json", *local.glob("shards/*.tar")]:
        store.write(path.relative_to(local).as_posix(), path.read_bytes())
    copy = dataset_copy.local_copy(url)
    assert tmp_path / "cache" in copy.parents
    assert (copy / "index.json").read_bytes() == (local / "index.json").read_bytes()
    with pytest.raises(UserError, match="no dataset"):
        dataset_copy.local_copy(f"memory://{tmp_path.name}-none")


def test_a_dataset_of_another_crop_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_copy, "CACHE", tmp_path / "cache")
    local = write_small_dataset(tmp_path / "made", num_frames=10)
    index = json.loads((local / "index.json").read_text())
    del index["crop"]
    url = f"memory://{tmp_path.name}-before"
    open_store(url).write("index.json", json.dumps(index).encode())
    with pytest.raises(UserError, match=rf"{url} was made with the former, larger crop"):
        dataset_copy.local_copy(url)
    assert not (tmp_path / "cache").exists()
