"""A checkpoint is whole or the previous one; nothing in it is executed."""

import errno
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from models.files.errors import ModelFileError
from tasks.train.checkpoints import load_state, save_state
from tasks.train.kept import load_trained_weights


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "checkpoint.pt"
    state = {"step": 3, "network": {"w": torch.arange(4.0)}, "list": [1, (2.5, "x")], "none": None}
    save_state(path, state)
    loaded = load_state(path)
    assert loaded["step"] == 3
    assert loaded["list"] == [1, (2.5, "x")]
    torch.testing.assert_close(loaded["network"]["w"], torch.arange(4.0))
    assert [each.name for each in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_failed_write_keeps_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_state(path, {"step": 1})

    class Unpicklable:
        def __reduce__(self) -> str:
            raise RuntimeError("cannot be written")

    with pytest.raises(RuntimeError, match="cannot be written"):
        save_state(path, {"step": 2, "bad": Unpicklable()})
    assert load_state(path)["step"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    path = tmp_path / "checkpoint.pt"
    save_state(path, {"step": 1})
    honest = Path.open

    def on_the_full_one(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = honest(self, mode, *rest, **more)
        return honest(full, "wb") if mode == "xb" else file

    monkeypatch.setattr(Path, "open", on_the_full_one)
    with pytest.raises(OSError, match="No space") as caught:
        save_state(path, {"step": 2, "network": {"w": torch.zeros(1 << 20)}})
    assert caught.value.errno == errno.ENOSPC
    assert load_state(path)["step"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_what_a_killed_run_left_half_written_goes(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pt.0123abcd.tmp").write_bytes(b"half")
    save_state(tmp_path / "checkpoint.pt", {"step": 1})
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_missing_damaged_and_hostile_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(ModelFileError, match="no checkpoint"):
        load_state(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_state(path)
    save_state(path, {"network": {"w": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_state(path)
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple:
            return (Path.touch, (marker,))

    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_state(path)
    assert not marker.exists()


def test_the_averaged_weights_are_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    network = {"w": torch.zeros(2), "buffer": torch.ones(2)}
    save_state(path, {"network": network, "average": {"w": torch.full((2,), 5.0)}})
    weights = load_trained_weights(path)
    assert weights["w"].tolist() == [5, 5]
    assert weights["buffer"].tolist() == [1, 1]
    save_state(path, {"network": network, "average": {}})
    assert load_trained_weights(path)["w"].tolist() == [0, 0]
