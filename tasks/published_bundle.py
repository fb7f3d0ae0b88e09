"""Published weights as a bundle that every flow takes: nothing is trained, no dataset is needed.

    python -m tasks.published_bundle OUT --unet latentsync-1.5-unet --resolution 256
    python -m flows.lip_sync VIDEO AUDIO OUT.mp4 --model OUT

Weights are names of `python -m tasks.weights`, or paths. `--register NAME` also makes the
bundle a version of that model, also where it was built before. `OUT/bundle.json` says from
which files it is made.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.errors import UserError
from models.files.errors import ModelFileError
from models.files.new_output import check_free, new_folder
from models.files.state_dict import check_archive
from models.latentsync.config import LatentSyncConfig
from tasks.published_model import FOLDER_FILES, RECIPES, Files, assemble, judge_config, write_judge
from tasks.registry import Registry
from tasks.runtime.failures import sentence_for
from tasks.tracking import Tracker, default_uri
from tasks.weights.bundle import ABOUT, bundle_digest, code_version, read_bundle
from tasks.weights.by_name import weight_file
from tasks.weights.download import free_bytes
from tasks.weights.store import sha256_of

RESOLUTIONS = {"latentsync-1.5-unet": 256, "latentsync-1.6-unet": 512}
"""What the shapes of a U-Net do not tell."""


Say = Callable[[str], None]


def build_bundle(output: Path, files: Files, resolution: int, say: Say = print) -> list[str]:
    """Write a bundle of published weights, all or nothing.

    Args:
        output: folder to make.
        files: the weights.
        resolution: side of the faces that the U-Net was trained on, 256 or 512 pixels.
        say: told in lines how far it is.

    Returns:
        Remarks for the user, which `bundle.json` holds too.

    Raises:
        UserError: a file is not there, the options contradict each other, the output is in the
            way, or there is no room for it.
        ModelFileError: a file is damaged or of another network, or two do not fit together.
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
        text = json.dumps(_about(model.config, files, paths, notes), indent=1, sort_keys=True)
        (folder / ABOUT).write_text(text, encoding="utf-8")
    return notes


def is_built(output: Path, files: Files, resolution: int) -> bool:
    """Whether a bundle of files of these names lies there, finished."""
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
    """A file of weights; of a folder, such as Hugging Face's, the one in it."""
    path = weight_file(name)
    if not path.is_dir():
        return path
    found = [path / file for file in FOLDER_FILES if (path / file).is_file()]
    if not found:
        raise UserError(f"the folder {path} holds no {' or '.join(FOLDER_FILES)}: give a file")
    return found[0]


def _check_room(folder: Path, paths: Any) -> None:
    needed = sum(path.stat().st_size for path in paths)
    free = free_bytes(folder)
    if needed > free:
        raise UserError(
            f"the bundle needs {needed / 1e9:.1f} GB and {folder.parent} has {free / 1e9:.1f} GB "
            "free: free some space or choose another folder"
        )


def _about(
    config: LatentSyncConfig, files: Files, paths: Mapping[str, Path], notes: list[str]
) -> dict[str, Any]:
    """What `bundle.json` says."""
    return {
        "recipe": "published",
        "resolution": config.resolution,
        "dataset_digest": "none",
        **{name: getattr(config, name) for name in ("mask", "crop", "reference")},
        "audio": config.audio,
        "code_version": code_version(),
        "notes": notes,
        "files": {
            part: {
                "name": getattr(files, part),
                "file": path.name,
                "bytes": path.stat().st_size,
                "sha256": sha256_of(path),
            }
            for part, path in paths.items()
        },
    }


def register_bundle(bundle: Path, name: str, uri: str) -> int:
    """Make a bundle of published weights the candidate of a model, once.

    Returns:
        The version's number.

    Raises:
        UserError: the store cannot be used.
    """
    registry, digest = Registry(uri), bundle_digest(bundle)
    for known in registry.versions(name):
        if known.tags.get("bundle_digest") == digest:
            return registry.register(bundle, name, known.run_id)
    tracker = Tracker(uri, name)
    run_id = tracker.start_run("published weights", tags={"recipe": "published"})
    try:
        version = registry.register(bundle, name, run_id)
    except BaseException:
        tracker.end_run("FAILED")
        raise
    tracker.end_run()
    return version


def main(argv: Sequence[str] | None = None) -> int:
    defaults = Files("")
    parser = argparse.ArgumentParser(
        prog="python -m tasks.published_bundle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--unet", required=True, help="such as latentsync-1.5-unet")
    parser.add_argument("--resolution", type=int, required=True, help="256 for 1.5, 512 for 1.6")
    for name in ("vae", "whisper", "syncnet"):
        parser.add_argument(f"--{name}", default=getattr(defaults, name), help="%(default)s")
    parser.add_argument(
        "--syncnet-config",
        default=defaults.syncnet_config,
        help="of the sync network: %(default)s, or a JSON file",
    )
    parser.add_argument("--register", metavar="NAME", help="also a version of this model")
    parser.add_argument("--tracking-uri", default=None, help="MLflow's store, for --register")
    given = parser.parse_args(argv)
    files = Files(given.unet, given.vae, given.whisper, given.syncnet, given.syncnet_config)
    uri = given.tracking_uri or default_uri()
    try:
        if given.register is not None:
            # Before the minutes of building: that the version cannot be made.
            Registry(uri).check_name(given.register)
        if given.register and is_built(given.output, files, given.resolution):
            print(f"{given.output} is there already and is taken as it is")
        else:
            for note in build_bundle(given.output, files, given.resolution):
                print(note)
        print(
            f"{given.output}: --model {given.output} of the flows lip_sync and evaluate_latentsync"
        )
        if given.register:
            version = register_bundle(given.output, given.register, uri)
            print(f"registered {given.register} version {version} as candidate")
    except KeyboardInterrupt:
        print("interrupted: the same command starts anew", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = sentence_for(error)
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
