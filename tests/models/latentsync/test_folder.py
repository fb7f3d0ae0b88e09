"""Models on disk: whole files, and one sentence for each way they can be wrong."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.files.errors import ModelFileError
from models.latentsync.model import LatentSync
from tests.support.small_models import small_model


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    small_model().save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_contents(bundle: Path) -> None:
    names = sorted(path.name for path in bundle.iterdir())
    assert names == ["autoencoder.safetensors", "config.json", "unet.safetensors"]
    assert json.loads((bundle / "config.json").read_text())["resolution"] == 64


def test_saving_again_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    LatentSync.load(bundle).save(tmp_path / "again")
    for path in bundle.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def change_config(bundle: Path, **changes: object) -> None:
    path = bundle / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damage_weights(bundle: Path, how: str) -> None:
    path = bundle / "unet.safetensors"
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "missing":
        path.unlink()
    else:
        state = load_file(path)
        state.pop(next(iter(state)))
        save_file({**state, "more": torch.zeros(1)}, path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"colour": 3}, r"\['colour'\]"),
        ({"autoencoder": {"kind": "vq"}}, "does not describe a model.*'vq'"),
        ({"unet": {"depth": 3}}, "does not describe a model.*depth"),
        ({"prediction_type": "epsilon"}, "must be 'sample'"),
        ({"reference": "own"}, "must be frame, still, away, got 'own'"),
        ({"latent_channels": 16}, "does not fit"),
    ],
)
def test_configuration_that_does_not_fit(bundle: Path, changes: dict, match: str) -> None:
    change_config(bundle, **changes)
    with pytest.raises(ModelFileError, match=match):
        LatentSync.load(bundle)


def test_a_configuration_that_names_no_mask_is_of_before_the_notch(bundle: Path) -> None:
    path = bundle / "config.json"
    before = json.loads(path.read_text())
    for name in ("mask", "crop", "reference"):
        del before[name]
    path.write_text(json.dumps(before))
    with pytest.raises(ModelFileError, match=r"former mask, without nose notch.*train or import"):
        LatentSync.load(bundle)


@pytest.mark.parametrize("name", ["mask", "crop"])
def test_another_mask_or_crop_is_refused_by_name(bundle: Path, name: str) -> None:
    change_config(bundle, **{name: "round"})
    with pytest.raises(ModelFileError, match=f"made with the {name} 'round', but this release has"):
        LatentSync.load(bundle)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("truncated", "unet.safetensors is truncated"),
        ("missing", "unet.safetensors is not there"),
        ("other", "1 weights are missing and 1 are unknown"),
    ],
)
def test_weights_that_do_not_fit(bundle: Path, how: str, match: str) -> None:
    damage_weights(bundle, how)
    with pytest.raises(ModelFileError, match=match):
        LatentSync.load(bundle)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no config\.json"):
        LatentSync.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match="cannot be read as JSON"):
        LatentSync.load(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelFileError, match="holds list"):
        LatentSync.load(tmp_path)
