"""The settings of a dataset: those that nobody asks to change stay as its receipt says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from datasets.errors import UserError
from datasets.faces.alignment import CROPS
from datasets.shards.index import check_crop, read_index
from datasets.store.protocol import Store
from tasks.ingest.config import IngestConfig
from tasks.ingest.verdicts import Thresholds
from tasks.publish.duplicates import check_kind
from tasks.publish.pack import PackConfig, with_fraction
from tasks.publish.receipt import RECEIPT, read_receipt
from tasks.weights.by_name import is_fetched

BEFORE = ""
"""Crop of datasets that do not name one."""


@dataclass(frozen=True)
class Settings:
    """The settings that a dataset is made with."""

    ingest: IngestConfig
    thresholds: Thresholds
    packing: PackConfig
    source: str = ""


def settings_of(store: Store) -> Settings:
    """The settings of a published dataset, from the receipt of its last refresh.

    Raises:
        UserError: there is no dataset, its clips have another crop, or its receipt is missing or
            from another release.
    """
    check_crop(store.url, read_index(store.url), *CROPS)
    settings = settings_before(store)
    if settings is None:
        raise UserError(
            f"{store.url}/{RECEIPT} does not say how the dataset was made: refresh it once with "
            "python -m flows.refresh_dataset"
        )
    return settings


def settings_before(store: Store) -> Settings | None:
    """The settings of what was published in a store; None if no receipt has them."""
    receipt = read_receipt(store)
    if receipt is None:
        return None
    try:
        return Settings(
            IngestConfig(**{"crop": BEFORE, **receipt["ingest"]}),
            Thresholds(**receipt["thresholds"]),
            PackConfig(**receipt["packing"]),
            receipt.get("source", ""),
        )
    except (KeyError, TypeError):
        return None


def next_settings(
    before: Settings | None,
    ingest: IngestConfig,
    asked: Mapping[str, Any],
    test_fraction: float | None,
    duplicates: str | None,
    quality: bool | None,
    source: str,
) -> Settings:
    """The settings of a refresh.

    Args:
        before: those of the published version.
        ingest: the settings of the clips, except for the image quality.
        asked: thresholds by name; those that are None or missing stay the same.
        test_fraction: share of speakers for testing; None: as before.
        duplicates: what counts as the same content; None: as before.
        quality: whether image quality is measured; None: as before, and for a new dataset
            if the weights are available.
        source: name of the source.

    Raises:
        UserError: the test fraction is out of range, or duplicates are not known.
    """
    packing = PackConfig(ingest.resolution)
    thresholds = Thresholds()
    if before:
        packing = replace(before.packing, resolution=ingest.resolution)
        thresholds = before.thresholds
        if before.ingest.scorer != ingest.scorer:
            # Each scorer has its own units.
            thresholds = replace(thresholds, min_confidence=None)
    packing = changed_packing(packing, test_fraction, duplicates)
    if quality is None:
        quality = before.ingest.quality if before else is_fetched("hyperiqa")
    return Settings(
        replace(ingest, quality=quality), changed_thresholds(thresholds, asked), packing, source
    )


def changed_packing(
    before: PackConfig, test_fraction: float | None, duplicates: str | None
) -> PackConfig:
    """How a dataset is packed, with what is not None replaced.

    Raises:
        UserError: the test fraction is out of range, or duplicates are not known.
    """
    if test_fraction is not None:
        before = with_fraction(before, test_fraction)
    if duplicates is not None:
        before = replace(before, duplicates=check_kind(duplicates))
    return before


def changed_thresholds(before: Thresholds, asked: Mapping[str, Any]) -> Thresholds:
    """Thresholds with the requested values replaced.

    Args:
        before: the earlier thresholds.
        asked: values by name, such as all parameters of a flow; other names and None are ignored.
    """
    given = {name: asked[name] for name in asdict(before) if asked.get(name) is not None}
    return replace(before, **given)


def differences(before: Thresholds, after: Thresholds) -> list[str]:
    """`name old -> new` for each threshold that changes."""
    old, new = asdict(before), asdict(after)
    return [f"{name} {old[name]} -> {new[name]}" for name in old if old[name] != new[name]]
