import json
from pathlib import Path

import pytest

from models.files import ModelFileError
from tasks.bundle import bundle_digest, read_bundle
from tests.fake_bundle import ABOUT, make_bundle


def test_a_whole_bundle_is_read(tmp_path: Path) -> None:
    assert read_bundle(make_bundle(tmp_path / "b")) == ABOUT


def test_the_digest_sees_names_and_contents(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "1"), make_bundle(tmp_path / "2")
    assert bundle_digest(first) == bundle_digest(second)
    (second / "weights.bin").rename(second / "others.bin")
    assert bundle_digest(first) != bundle_digest(second)
    (first / "weights.bin").write_bytes(b"other")
    assert bundle_digest(first) != bundle_digest(make_bundle(tmp_path / "3"))


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_damaged_descriptions_are_one_sentence(tmp_path: Path, content: str) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelFileError, match="is no model bundle"):
        read_bundle(folder)


def test_files_of_two_trainings_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "config.json").write_text(json.dumps({"resolution": 64, "audio": "whisper"}))
    with pytest.raises(ModelFileError, match=r"audio 'mel', config\.json says 'whisper'"):
        read_bundle(folder)
