"""Published models by name: fetched and put together once, and at hand from then on."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock

from tasks.registry.import_weights import Say, build_bundle, is_built
from tasks.registry.third_party import Files
from tasks.registry.versions import resolve
from tasks.weights import store
from tasks.weights.bundle import ABOUT
from tasks.weights.table import WEIGHTS

Published = tuple[Files, int]
"""The weights of a model, and the side of its faces in pixels."""
PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "latentsync-1.5": (Files("latentsync-1.5-unet"), 256),
        "latentsync-1.6": (Files("latentsync-1.6-unet", syncnet="latentsync-1.6-syncnet"), 512),
    }
)
FOLDER = "bundles"
"""Where bundles are kept, below the folder of weights."""
TENTHS = 10


def resolve_model(
    reference: str,
    uri: str,
    say: Say = print,
    published: Mapping[str, Published] = PUBLISHED,
) -> Path:
    """The bundle folder of a published model, of a registered one, or of a path.

    Args:
        reference: a name of `PUBLISHED`, or what `tasks.registry.versions.resolve` takes. A folder
            that has the name of a published model is taken as the folder.
        uri: MLflow's store.
        say: called with lines of progress.
        published: the models that are known by name.

    Raises:
        UserError: it does not exist, or there is no room for it.
        ModelFileError: files are damaged or cannot be fetched.
    """
    if reference in published and not Path(reference).is_dir():
        reference = str(_at_hand(reference, *published[reference], say))
    return resolve(reference, uri)


def _at_hand(name: str, files: Files, resolution: int, say: Say) -> Path:
    """The folder of a published model, made where it is missing or of an earlier release."""
    folder = store.weights_folder() / FOLDER / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{name}.lock")):
        if not is_built(folder, files, resolution):
            if (folder / ABOUT).is_file():
                # A bundle of files that are still there; anything else is refused as it is.
                shutil.rmtree(folder)
            _fetch(name, files, say)
            for note in build_bundle(folder, files, resolution, say):
                say(note)
            say(f"{name} is kept in {folder}")
    return folder


def _fetch(name: str, files: Files, say: Say) -> None:
    """Fetch what a model is made of; licences are shown with what is fetched, so once."""
    known = {weight.name: weight for weight in WEIGHTS}
    for each in (files.unet, files.vae, files.whisper, files.syncnet):
        weight = known.get(each)
        if weight is None or (store.weights_folder() / weight.file).is_file():
            continue
        size = "" if weight.size is None else f", {weight.size / 1e6:,.0f} MB"
        say(f"{name} needs {each}{size}, licence {weight.licence}: fetching {weight.url}")
        store.fetch(each, progress=_tenths(each, say))


def _tenths(name: str, say: Say) -> Callable[[int, int | None], None]:
    """Says how far a download is at each tenth of it."""
    told = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal told
        if total and done * TENTHS // total > told:
            told = done * TENTHS // total
            say(f"{name}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    return progress
