"""Records of weights are read back, or reported as damaged; folders are checked first."""

import os
from pathlib import Path

import pytest

from models.files.errors import ModelFileError
from tasks.weights.lock import LOCK_FILE, can_lock, exclusive, lock_of, record, recorded


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    assert recorded(tmp_path / "none", "a") == {}
    file = tmp_path / "a.pt"
    file.write_bytes(b"x")
    record(tmp_path, "a", "a.pt", "00ff", file.stat())
    record(tmp_path, "b", "a.pt", "11", file.stat())
    known = recorded(tmp_path, "a")
    assert (known["file"], known["sha256"], known["size"]) == ("a.pt", "00ff", 1)
    assert known["mtime_ns"] == file.stat().st_mtime_ns
    assert recorded(tmp_path, "c") == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"a": []}', '{"a": {}}', '{"b": {"sha256": 3}}', "[" * 99_999]
)
def test_a_damaged_record_is_a_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text(text)
    file = tmp_path / "a.pt"
    file.write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"weights\.lock\.json, which .* delete it if"):
        recorded(tmp_path, "a")
    with pytest.raises(ModelFileError, match="cannot be read"):
        record(tmp_path, "a", "a.pt", "00", file.stat())
    assert (tmp_path / LOCK_FILE).read_text() == text


def test_a_record_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(ModelFileError, match="Is a directory"):
        recorded(tmp_path, "a")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(ModelFileError, match=r"cannot be put into .*file/kind \(Not a directory\)"),
        exclusive(tmp_path / "file" / "kind" / "a.lock"),
    ):
        pass


def test_a_lock_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    lock = lock_of(path)
    lock.write_bytes(b"")
    assert can_lock(tmp_path, path)
    monkeypatch.setattr(os, "access", lambda each, _: each != lock)
    assert not can_lock(tmp_path, path)
    lock.unlink()
    assert can_lock(tmp_path, path)
