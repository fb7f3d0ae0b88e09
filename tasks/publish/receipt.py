"""What was noted when a version was published, and which shards it replaced."""

import json
from typing import Any, TypedDict, cast

from datasets.shards.index import INDEX, DatasetIndex, read_index
from datasets.store.protocol import Store

RECEIPT = "refresh.json"
"""What the published files were made of; kept beside them, no part of the dataset."""


class Receipt(TypedDict, total=False):
    """Content of `refresh.json`. Those of earlier releases lack some of it."""

    fingerprint: str
    """Of everything that the published files depend on."""
    digest: str
    """Of the version."""
    previous: str
    """Digest of the version before; empty for the first."""
    ledger_bytes: int
    packing: dict[str, Any]
    """Of `PackConfig`."""
    ingest: dict[str, Any]
    """Of `IngestConfig`."""
    thresholds: dict[str, Any]
    """Of `Thresholds`, as they were asked for."""
    thresholds_in_force: dict[str, float | None]
    splits: dict[str, str]
    """speaker -> split."""
    previous_shards: list[str]
    source: str
    changes: dict[str, int]
    """Kind -> number of files."""
    first_names: dict[str, list[str]]


def read_receipt(store: Store) -> Receipt | None:
    """What was noted when the dataset was published; None where nothing is."""
    try:
        receipt = json.loads(store.read(RECEIPT))
    except (FileNotFoundError, ValueError):
        return None
    return cast(Receipt, receipt) if isinstance(receipt, dict) else None


def current_index(store: Store) -> DatasetIndex | None:
    """The index of the version that is published; None where there is none.

    Raises:
        UserError: there is one, but it cannot be read.
    """
    return None if store.size(INDEX) is None else read_index(store.url)


def previous_shards(store: Store) -> list[str]:
    """Names of the shards of the version before the published one: who trains on that one goes
    on reading them until there is another version."""
    receipt = read_receipt(store)
    return list(receipt.get("previous_shards", [])) if receipt else []


def read_previous_splits(store: Store, test_fraction: float) -> dict[str, str]:
    """speaker -> split, as the versions so far have it; none counts for another share."""
    receipt = read_receipt(store)
    if receipt is None:
        return {}
    same = (receipt.get("packing") or {}).get("test_fraction") == test_fraction
    return dict(receipt.get("splits") or {}) if same else {}
