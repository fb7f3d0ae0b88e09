"""Published weights by name or path."""

from pathlib import Path

import pytest

from datasets.errors import UserError
from models.files.errors import ModelFileError
from tasks.weights.by_name import is_fetched, weight_file
from tasks.weights.store import find


def test_a_path_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "some.pt"
    path.write_bytes(b"x")
    assert weight_file(str(path)) == path


def test_a_name_is_its_file_in_the_weights_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"whisper-tiny are not at .*tiny\.pt: `make weights`"):
        weight_file("whisper-tiny")
    # Of this one neither size nor digest is known beforehand.
    file = tmp_path / find("sd-vae-ft-mse").file
    file.parent.mkdir()
    file.write_bytes(b"x")
    assert weight_file("sd-vae-ft-mse") == file


def test_a_damaged_or_swapped_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    known = tmp_path / find("whisper-tiny").file
    known.parent.mkdir()
    known.write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"whisper-tiny at .* have changed: it has"):
        weight_file("whisper-tiny")
    file = tmp_path / find("sd-vae-ft-mse").file
    file.parent.mkdir()
    file.write_bytes(b"first")
    weight_file("sd-vae-ft-mse")
    file.write_bytes(b"other")
    with pytest.raises(ModelFileError, match=r"have changed: its sha256 is"):
        weight_file("sd-vae-ft-mse")


def test_an_unknown_name_lists_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"no file nonsense, and .* choose one of latentsync-1"):
        weight_file("nonsense")


def test_whether_a_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path))
    assert not is_fetched("sd-vae-ft-mse")
    file = tmp_path / find("sd-vae-ft-mse").file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    assert is_fetched("sd-vae-ft-mse")
    file.write_bytes(b"y")
    with pytest.raises(ModelFileError, match="have changed"):
        is_fetched("sd-vae-ft-mse")
