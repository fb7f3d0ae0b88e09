import json
from pathlib import Path

import pytest

from datasets.faces import alignment
from models.files.errors import ModelFileError
from models.latentsync.config import LatentSyncConfig
from tasks.weights.bundle import bundle_digest, is_outdated, read_bundle
from tests.support.fake_bundle import ABOUT, CONFIG, make_bundle


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
    with pytest.raises(ModelFileError, match="is not a model bundle"):
        read_bundle(folder)


def test_files_of_two_trainings_are_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "audio": "whisper"}))
    with pytest.raises(ModelFileError, match=r"audio 'mel', config\.json says 'whisper'"):
        read_bundle(folder)


def test_a_model_of_before_the_notch_is_refused_by_name(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    before = {name: value for name, value in ABOUT.items() if name not in ("crop", "reference")}
    (folder / "bundle.json").write_text(json.dumps({**before, "mask": "latentsync-1.5"}))
    said = r"made with the former mask, without nose notch.*train or import again"
    with pytest.raises(ModelFileError, match=said):
        read_bundle(folder)
    # Whatever else its files say.
    (folder / "bundle.json").write_text(json.dumps({**ABOUT, "mask": "latentsync-1.5"}))
    with pytest.raises(ModelFileError, match=said):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["mask", "crop"])
def test_another_mask_or_crop_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "bundle.json").write_text(json.dumps({**ABOUT, name: "round"}))
    said = rf"the {name} 'round', but this release has '{ABOUT[name]}': train or import again"
    with pytest.raises(ModelFileError, match=said):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["mask", "crop", "reference"])
def test_both_files_of_a_bundle_say_the_same(tmp_path: Path, name: str) -> None:
    folder = make_bundle(tmp_path / "b")
    (folder / "config.json").write_text(json.dumps({**CONFIG, name: "round"}))
    with pytest.raises(ModelFileError, match=rf"{name} '.*', config\.json says 'round'"):
        read_bundle(folder)


def test_names_are_those_of_the_alignment_and_the_mask() -> None:
    assert LatentSyncConfig().crop == alignment.CROP
    assert not is_outdated({"mask": LatentSyncConfig().mask, "crop": alignment.CROP})
    assert is_outdated({"mask": "latentsync-1.5"})
    assert is_outdated({"mask": LatentSyncConfig().mask, "crop": "wider"})
    with pytest.raises(ValueError, match="no mask 'round'"):
        LatentSyncConfig(mask="round")
    with pytest.raises(ValueError, match="no crop 'wide'"):
        LatentSyncConfig(crop="wide")
    with pytest.raises(ValueError, match="reference must be frame, still, away"):
        LatentSyncConfig(reference="own")  # type: ignore[arg-type]
