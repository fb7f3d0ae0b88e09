"""What was noted when a version was published, and which shards it replaced."""

import json
from typing import Any

from datasets.shards.index import INDEX, read_index
from datasets.store.protocol import Store

RECEIPT = "refresh.json"
"""What the published files were made of; kept beside them, no part of the dataset."""


def read_receipt(store: Store) -> dict[str, Any] | None:
    """What was noted when the dataset was published; None where nothing is."""
    try:
        receipt = json.loads(store.read(RECEIPT))
    except (FileNotFoundError, ValueError):
        return None
    return receipt if isinstance(receipt, dict) else None


def current_index(store: Store) -> dict[str, Any] | None:
    """The index of the version that is published; None where there is none.

    Raises:
        UserError: there is one, but it cannot be read.
    """
    return None if store.size(INDEX) is None else read_index(store.url)


def previous_shards(store: Store) -> list[str]:
    """Names of the shards of the version before the published one: who trains on that one goes
    on reading them until there is another version."""
    return list((read_receipt(store) or {}).get("previous_shards", []))


def read_previous_splits(store: Store, test_fraction: float) -> dict[str, str]:
    """speaker -> split, as the versions so far have it; none counts for another share."""
    receipt = read_receipt(store) or {}
    splits = receipt.get("splits") or {}
    same = (receipt.get("packing") or {}).get("test_fraction") == test_fraction
    return dict(splits) if same else {}
