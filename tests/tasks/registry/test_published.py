"""Published models by name: fetched from a server once, put together, and taken as they are."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.errors import UserError
from models.files.errors import ModelFileError
from tasks.registry.published import PUBLISHED, Published, resolve_model
from tasks.registry.third_party import Files as Parts
from tasks.weights.store import find
from tasks.weights.table import WEIGHTS
from tests.support.file_server import Files, file_server
from tests.tasks.registry.test_import_weights import folder

__all__ = ["folder"]

NAME = "latentsync-1.6"
FETCHED = {
    "latentsync-1.6-unet": "unet.pt",
    "latentsync-1.6-syncnet": "syncnet.pt",
    "sd-vae-ft-mse": "vae.safetensors",
}
"""Weights whose sha256 is not known beforehand, so that small files can stand for them."""


@pytest.fixture
def server(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    """A mirror that has small files of the published formats."""
    with file_server() as files:
        for name, file in FETCHED.items():
            files.content[find(name).file] = (folder / file).read_bytes()
        monkeypatch.setenv("WEIGHTS_MIRROR", files.address)
        monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "weights"))
        monkeypatch.setenv("WEIGHTS_OFFLINE", "0")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield files


@pytest.fixture
def published(folder: Path) -> dict[str, Published]:
    files, resolution = PUBLISHED[NAME]
    whisper, config = str(folder / "tiny.pt"), str(folder / "syncnet.json")
    return {NAME: (replace(files, whisper=whisper, syncnet_config=config), resolution)}


def resolved(published: dict[str, Published]) -> tuple[Path, list[str]]:
    said: list[str] = []
    return resolve_model(NAME, "sqlite:///unused.db", said.append, published), said


def test_a_name_is_fetched_and_put_together_once(
    server: Files, published: dict[str, Published], tmp_path: Path
) -> None:
    bundle, said = resolved(published)
    assert bundle == tmp_path / "weights" / "bundles" / NAME
    about = json.loads((bundle / "bundle.json").read_text())
    assert about["resolution"] == 512
    assert about["files"]["unet"]["name"] == "latentsync-1.6-unet"
    for name in FETCHED:
        (line,) = [each for each in said if f"needs {name}" in each]
        assert f"licence {find(name).licence}" in line
    requests = len(server.requests)
    assert resolved(published) == (bundle, [])
    assert len(server.requests) == requests


def test_what_is_damaged_is_put_together_again_from_the_same_files(
    server: Files, published: dict[str, Published]
) -> None:
    bundle, _ = resolved(published)
    before = (bundle / "bundle.json").read_bytes()
    (bundle / "bundle.json").write_text("{}")
    requests = len(server.requests)
    again, said = resolved(published)
    assert (again / "bundle.json").read_bytes() == before
    assert len(server.requests) == requests
    assert not any("needs" in line for line in said)


def test_what_is_no_bundle_stays_where_it_is(
    server: Files, published: dict[str, Published], tmp_path: Path
) -> None:
    kept = tmp_path / "weights" / "bundles" / NAME / "mine.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    with pytest.raises((UserError, ModelFileError), match=NAME):
        resolved(published)
    assert kept.read_text() == "mine"


def test_what_was_fetched_before_an_interruption_is_not_fetched_again(
    server: Files, published: dict[str, Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = find("sd-vae-ft-mse").file
    content = server.content.pop(asked)
    with pytest.raises(ModelFileError, match="sd-vae-ft-mse"):
        resolved(published)
    server.content[asked] = content
    _, said = resolved(published)
    assert not any("needs latentsync-1.6-unet" in line for line in said)


def test_without_the_network_a_sentence_says_what_is_missing(
    published: dict[str, Published], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("WEIGHTS_OFFLINE", "1")
    with pytest.raises(
        ModelFileError, match=r"latentsync-1\.6-unet .* the network is switched off"
    ):
        resolved(published)


def test_a_folder_of_that_name_is_the_folder(
    published: dict[str, Published], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.raises(ModelFileError, match=r"bundle\.json"):
        resolved(published)
    with pytest.raises(UserError, match="there is no model folder latentsync-2"):
        resolve_model("latentsync-2", "sqlite:///unused.db")


def test_every_published_model_is_made_of_known_weights() -> None:
    known = {weight.name for weight in WEIGHTS}
    for files, resolution in PUBLISHED.values():
        assert {files.unet, files.vae, files.whisper, files.syncnet} <= known
        assert resolution in (256, 512)
    assert Parts("x").whisper == "whisper-tiny"
