"""Whose TorchScript files may run."""

from pathlib import Path

import pytest

from datasets.errors import UserError
from datasets.store.atomic import content_digest
from models.files.errors import ModelFileError
from tasks.weights.command import main
from tasks.weights.store import find
from tasks.weights.trust import TRUSTED, trusted_digests


def test_known_are_the_table_and_what_somebody_trusts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "a.pt", tmp_path / "b.pt"
    file.write_bytes(b"a")
    other.write_bytes(b"b")
    digest = content_digest(file)
    known = trusted_digests(folder=tmp_path)
    assert find("i3d").sha256 in known
    assert None not in known
    assert digest not in known
    assert trusted_digests([str(file)], tmp_path) == known | {digest}
    assert main(["trust", str(file), "--folder", str(tmp_path)]) == 0
    assert f"sha256 {digest} is trusted from now on" in capsys.readouterr().out
    assert trusted_digests(folder=tmp_path) == known | {digest}
    file.write_bytes(b"other content")
    assert content_digest(file) not in trusted_digests(folder=tmp_path)


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trust", "nothing.pt", "--folder", str(tmp_path)]) == 2
    assert "there is no file nothing.pt" in capsys.readouterr().err
    with pytest.raises(UserError, match="is not a file"):
        trusted_digests([str(tmp_path)], tmp_path)
    (tmp_path / TRUSTED).write_text("[")
    with pytest.raises(ModelFileError, match="is damaged: delete it and trust the files again"):
        trusted_digests(folder=tmp_path)
