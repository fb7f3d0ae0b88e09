"""Which TorchScript files may run: those of the weights table, and those that somebody trusts."""

import json
from collections.abc import Sequence
from pathlib import Path

from datasets.errors import UserError
from datasets.store.atomic import content_digest, write_atomic
from models.files.errors import ModelFileError
from tasks.weights.by_name import weight_file
from tasks.weights.store import weights_folder
from tasks.weights.table import WEIGHTS

TRUSTED = "trusted.json"
"""File name -> sha256 of what was trusted for good, in the weights folder."""


def trusted_digests(files: Sequence[str] = (), folder: Path | None = None) -> frozenset[str]:
    """sha256 of the TorchScript files that may run.

    A sha256 that was only recorded when a file was first used does not count: nobody published it.

    Args:
        files: paths or names of files that are trusted this time.
        folder: the weights folder.

    Raises:
        UserError: one of these files does not exist.
        ModelFileError: the record of trusted files is damaged.
    """
    known = {weight.sha256 for weight in WEIGHTS if weight.sha256}
    recorded = _recorded(folder or weights_folder())
    return frozenset(known | {*recorded.values()} | {_digest(name) for name in files})


def trust(file: str, folder: Path | None = None) -> str:
    """Trust a file for good; returns its sha256.

    Raises:
        UserError: the file does not exist.
        ModelFileError: the record of trusted files is damaged.
        OSError: the record cannot be written.
    """
    folder, digest = folder or weights_folder(), _digest(file)
    recorded = _recorded(folder) | {Path(file).name: digest}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / TRUSTED, json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    return digest


def _digest(name: str) -> str:
    path = weight_file(name)
    if not path.is_file():
        raise UserError(
            f"{path} cannot be trusted, since it is not a file: give a TorchScript file"
        )
    return content_digest(path)


def _recorded(folder: Path) -> dict[str, str]:
    path = folder / TRUSTED
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in found.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as problem:
        raise ModelFileError(
            f"{path} is damaged: delete it and trust the files again ({problem})"
        ) from problem
