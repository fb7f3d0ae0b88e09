"""A dataset on this machine, wherever it was published."""

from pathlib import Path

from datasets.faces.alignment import CROPS
from datasets.shards.index import check_crop, read_index
from datasets.shards.local_copy import local_dataset
from datasets.store.local import LocalStore
from datasets.store.open import open_store
from flows.support.artifacts import ProgressReport

CACHE = Path("runs/cache")
"""Copies of datasets from object storage, each version in a folder of its own."""


def local_copy(dataset: str) -> Path:
    """The folder of a dataset, fetched and verified first where it is in object storage.

    Raises:
        UserError: there is no dataset, it is damaged, or the faces that would have to be fetched
            have a different crop from the one this release knows.
    """
    if not isinstance(open_store(dataset), LocalStore):
        check_crop(dataset, read_index(dataset), *CROPS)
    report = ProgressReport("fetching the dataset: MiB")

    def told(here: int, total: int | None, note: str = "") -> None:
        report(here >> 20, None if total is None else total >> 20, note)

    return local_dataset(dataset, CACHE, told).resolve()
