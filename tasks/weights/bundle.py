"""What makes a folder a model bundle, and how to check that it is complete and unchanged.

A bundle is the output of training: `config.json` and safetensors of the networks,
`bundle.json` with where it comes from, and `syncnet/`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import models
from datasets.store.atomic import content_digest
from models.files.errors import ModelFileError
from models.latentsync.config import CROP, MASK, check_inputs
from tasks.weights.signing import SIGNATURE

ABOUT = "bundle.json"
CONFIG = "config.json"
REQUIRED = (
    "recipe",
    "resolution",
    "dataset_digest",
    "mask",
    "crop",
    "reference",
    "audio",
    "code_version",
)
SHARED = ("resolution", "audio", "mask", "crop", "reference")
"""The keys that both files of a bundle have."""


class WeightsFile(TypedDict):
    """A file of published weights that a bundle was made from."""

    name: str
    file: str
    bytes: int
    sha256: str


class BundleFacts(TypedDict):
    """Content of `bundle.json`."""

    recipe: str
    resolution: int
    """Side of the faces, pixels."""
    dataset_digest: str
    mask: str
    crop: str
    reference: str
    audio: str
    code_version: str
    configuration: NotRequired[dict[str, Any]]
    """The recipe, if the bundle was trained."""
    stages: NotRequired[dict[str, str]]
    """Digests of the training stages."""
    adapter: NotRequired[dict[str, Any]]
    """What `adapter.json` holds, if an adapter was merged into the weights."""
    licence: NotRequired[str]
    """Name of a licence, in `tasks.weights.licences`, that weights it was trained through bring."""
    notes: NotRequired[list[str]]
    """Notes for the user, if the weights are published ones."""
    files: NotRequired[dict[str, WeightsFile]]
    """Part -> the file that its weights are from, if they are published ones."""


def bundle_digest(folder: Path) -> str:
    """sha256 over names and contents of a bundle's files but its signature, in sorted order."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path == folder / SIGNATURE:
            continue
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(bytes.fromhex(content_digest(path)))
    return total.hexdigest()


def read_bundle(folder: Path) -> BundleFacts:
    """Read `bundle.json`, after checking that the bundle's files belong together.

    Raises:
        ModelFileError: a file is missing or damaged, they contradict each other, or the model
            was made with a mask or crop different from this release's.
    """
    about = _read_json(folder / ABOUT)
    config = _read_json(folder / CONFIG)
    if "mask" in about:
        check_inputs(folder, about)
    missing = [name for name in REQUIRED if name not in about]
    if missing:
        raise ModelFileError(
            f"{folder / ABOUT} does not have {', '.join(missing)}: train the model again"
        )
    for name in SHARED:
        if name in config and config[name] != about[name]:
            raise ModelFileError(
                f"the bundle {folder} contradicts itself: {ABOUT} says {name} {about[name]!r}, "
                f"{CONFIG} says {config[name]!r}; the files are not from the same training"
            )
    return cast(BundleFacts, about)


def is_outdated(facts: Mapping[str, Any]) -> bool:
    """Whether a model with these tags in the registry was made with another mask or crop."""
    return facts.get("mask") != MASK or facts.get("crop") != CROP


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{path.parent} is not a model bundle: {path.name} cannot be read ({error})"
        ) from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} is not a JSON object, so {path.parent} is not a model bundle")
    return content


def code_version() -> str:
    """A digest of the networks' source code, which wrote and can read these weights."""
    total = hashlib.sha256()
    folder = Path(str(models.__file__)).parent
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        total.update(name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]
