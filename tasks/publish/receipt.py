"""The record of a version's publication, and of the shards it replaced."""

import json
from typing import Any, TypedDict, cast

from datasets.shards.index import INDEX, DatasetIndex, read_index
from datasets.store.protocol import Store
from tasks.publish.retention import ReplacedVersion

RECEIPT = "refresh.json"
"""What the published files were made from; stored next to them, but not part of the dataset."""


class Receipt(TypedDict, total=False):
    """Content of `refresh.json`. In those of earlier releases some keys are missing."""

    fingerprint: str
    """Digest of everything that the published files depend on."""
    digest: str
    """Digest of the version."""
    previous: str
    """Digest of the previous version; empty for the first."""
    ledger_bytes: int
    packing: dict[str, Any]
    """Of `PackConfig`."""
    ingest: dict[str, Any]
    """Of `IngestConfig`."""
    thresholds: dict[str, Any]
    """Fields of `Thresholds`, as they were requested."""
    thresholds_in_force: dict[str, float | None]
    splits: dict[str, str]
    """speaker -> split."""
    replaced: list[ReplacedVersion]
    """Versions that were replaced and whose files are kept, oldest first."""
    previous_shards: list[str]
    """The files of the previous version, in receipts of earlier releases."""
    source: str
    changes: dict[str, int]
    """Kind -> number of files."""
    first_names: dict[str, list[str]]


def read_receipt(store: Store) -> Receipt | None:
    """The receipt of the published dataset; None if there is none."""
    try:
        receipt = json.loads(store.read(RECEIPT))
    except (FileNotFoundError, ValueError):
        return None
    return cast(Receipt, receipt) if isinstance(receipt, dict) else None


def current_index(store: Store) -> DatasetIndex | None:
    """The index of the published version; None if nothing is published.

    Raises:
        UserError: there is an index, but it cannot be read.
    """
    return None if store.size(INDEX) is None else read_index(store.url)


def replaced_versions(store: Store) -> list[ReplacedVersion]:
    """The versions before the published one whose files are kept, oldest first."""
    receipt = read_receipt(store)
    if receipt is None:
        return []
    if "replaced" in receipt:
        return list(receipt["replaced"])
    files = receipt.get("previous_shards")
    before = receipt.get("previous", "")
    return [{"digest": before, "replaced_at": 0.0, "files": list(files)}] if files else []


def read_previous_splits(store: Store, test_fraction: float) -> dict[str, str]:
    """speaker -> split in the versions so far; empty if they were made for another share."""
    receipt = read_receipt(store)
    if receipt is None:
        return {}
    same = (receipt.get("packing") or {}).get("test_fraction") == test_fraction
    return dict(receipt.get("splits") or {}) if same else {}
