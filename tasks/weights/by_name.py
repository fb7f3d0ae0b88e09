"""Published weights by name or path: the file, or a sentence on how to get it.

Nothing is fetched here: gigabytes are only downloaded on request. Files of the
table are verified before they are used, and read again only if they have changed.
"""

from pathlib import Path

from datasets.errors import UserError
from datasets.store.atomic import content_digest
from models.files.errors import ModelFileError
from tasks.weights.bundle import bundle_digest
from tasks.weights.store import find, verified, weights_folder


def weight_file(name: str) -> Path:
    """The file for a name in `tasks.weights.table`, or for a path.

    Raises:
        UserError: there is no such file.
        ModelFileError: a file of the table is damaged, or has changed since its first use.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    try:
        weight = find(name)
    except ModelFileError as error:
        raise UserError(f"there is no file {name}, and {error}") from error
    found = weights_folder() / weight.file
    if not found.is_file():
        raise UserError(
            f"the weights {name} are not at {found}: `make weights` lists what is missing, "
            f"`python -m tasks.weights fetch {name}` fetches them ({weight.licence})"
        )
    return verified(name)


def weights_digest(name: str) -> str:
    """sha256 of the content of weights, wherever they are; for a folder, of all its files.

    Raises:
        UserError: there is no such file.
    """
    path = weight_file(name)
    return bundle_digest(path) if path.is_dir() else content_digest(path)


def is_fetched(name: str) -> bool:
    """Whether the file for a row of the weights table exists.

    Raises:
        ModelFileError: it exists, but is damaged.
    """
    if not (weights_folder() / find(name).file).is_file():
        return False
    verified(name)
    return True
