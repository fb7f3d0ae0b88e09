"""Turn published weights into a bundle for every flow: no training, no dataset.

`python -m flows.import_weights` is the command.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from datasets.errors import UserError
from datasets.store.atomic import content_digest
from models.files.errors import ModelFileError
from models.files.new_output import check_free, new_folder
from models.files.state_dict import check_archive
from models.latentsync.config import LatentSyncConfig
from tasks.registry.third_party import (
    FOLDER_FILES,
    RECIPES,
    Files,
    assemble,
    judge_config,
    write_judge,
)
from tasks.registry.tracking import RunTracker
from tasks.registry.versions import Registry
from tasks.weights.bundle import ABOUT, BundleFacts, bundle_digest, code_version, read_bundle
from tasks.weights.by_name import weight_file
from tasks.weights.download import free_bytes
from tasks.weights.signing import sign_folder

RESOLUTIONS = {"latentsync-1.5-unet": 256, "latentsync-1.6-unet": 512}
"""What cannot be told from the shapes of a U-Net."""


Say = Callable[[str], None]


def build_bundle(output: Path, files: Files, resolution: int, say: Say = print) -> list[str]:
    """Write a bundle of published weights, all or nothing.

    Args:
        output: folder to create.
        files: the weights to use.
        resolution: side of the faces that the U-Net was trained on, 256 or 512 pixels.
        say: called with lines of progress.

    Returns:
        Notes for the user, which are also in `bundle.json`.

    Raises:
        UserError: a file is missing, the options contradict each other, something is in the
            output's place, or there is no room for it.
        ModelFileError: a file is damaged or for another network, or two do not fit together.
    """
    check_free(output)
    _check_resolution(files.unet, resolution)
    judge = judge_config(files.syncnet_config)
    paths = {name: _file(getattr(files, name)) for name in ("unet", "vae", "whisper", "syncnet")}
    with new_folder(output) as folder:
        _check_room(folder, paths.values())
        say("putting the model together")
        for path in paths.values():
            check_archive(path)
        model, notes = assemble(paths, resolution)
        model.save(folder)
        write_judge(folder / "syncnet", paths["syncnet"], judge, files, resolution)
        say("reading the files' sha256")
        text = json.dumps(
            _describe_bundle(model.config, files, paths, notes), indent=1, sort_keys=True
        )
        (folder / ABOUT).write_text(text, encoding="utf-8")
        sign_folder(folder)
    return notes


def is_built(output: Path, files: Files, resolution: int) -> bool:
    """Whether the folder is a finished bundle of files with these names."""
    try:
        about = read_bundle(output)
    except ModelFileError:
        return False
    parts = about.get("files")
    names = {part: getattr(files, part) for part in ("unet", "vae", "whisper", "syncnet")}
    return (
        about.get("recipe") == "published"
        and about.get("resolution") == resolution
        and isinstance(parts, dict)
        and names == {part: each.get("name") for part, each in parts.items()}
    )


def _check_resolution(unet: str, resolution: int) -> None:
    if resolution not in RECIPES:
        raise UserError(
            f"no published network is for faces of {resolution} pixels: give --resolution 256 "
            "(LatentSync 1.5) or 512 (1.6)"
        )
    expected = RESOLUTIONS.get(unet, resolution)
    if expected != resolution:
        raise UserError(
            f"{unet} was trained on faces of {expected} pixels, not {resolution}: give "
            f"--resolution {expected}"
        )


def _file(name: str) -> Path:
    """A file of weights; for a folder, such as Hugging Face's, the file in it."""
    path = weight_file(name)
    if not path.is_dir():
        return path
    found = [path / file for file in FOLDER_FILES if (path / file).is_file()]
    if not found:
        raise UserError(f"the folder {path} does not hold {' or '.join(FOLDER_FILES)}: give a file")
    return found[0]


def _check_room(folder: Path, paths: Iterable[Path]) -> None:
    needed = sum(path.stat().st_size for path in paths)
    free = free_bytes(folder)
    if needed > free:
        raise UserError(
            f"the bundle needs {needed / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} GB "
            "free: free some space or choose another folder"
        )


def _describe_bundle(
    config: LatentSyncConfig, files: Files, paths: Mapping[str, Path], notes: list[str]
) -> BundleFacts:
    """The content of `bundle.json`."""
    return {
        "recipe": "published",
        "resolution": config.resolution,
        "dataset_digest": "none",
        "mask": config.mask,
        "crop": config.crop,
        "reference": config.reference,
        "audio": config.audio,
        "code_version": code_version(),
        "notes": notes,
        "files": {
            part: {
                "name": getattr(files, part),
                "file": path.name,
                "bytes": path.stat().st_size,
                "sha256": content_digest(path),
            }
            for part, path in paths.items()
        },
    }


def register_bundle(bundle: Path, name: str, uri: str) -> int:
    """Register a bundle of published weights as the candidate of a model, once.

    Returns:
        The version's number.

    Raises:
        UserError: the store cannot be used.
    """
    registry, digest = Registry(uri), bundle_digest(bundle)
    for known in registry.versions(name):
        if known.tags.get("bundle_digest") == digest:
            return registry.register(bundle, name, known.run_id)
    tracker = RunTracker(uri, name)
    run_id = tracker.start_run("published weights", tags={"recipe": "published"})
    try:
        version = registry.register(bundle, name, run_id)
    except BaseException:
        tracker.end_run("FAILED")
        raise
    tracker.end_run()
    return version
