"""Prefect does not look into what a parcel holds."""

from collections import Counter
from typing import Any, get_type_hints

import pytest
from prefect.utilities.collections import visit_collection

from flows import refresh_dataset
from flows.support.parcel import Parcel


def visited(value: Any) -> list[Any]:
    """What Prefect looks at in an argument or a result."""
    seen: list[Any] = []
    visit_collection(value, seen.append)
    return seen


def test_only_the_parcel_is_looked_at() -> None:
    items = [f"item {number}" for number in range(10)]
    assert len(visited({"sources": items})) > len(items)
    parcel = Parcel(items)
    kinds = Counter(type(each) for each in visited({"sources": parcel}))
    assert kinds == {dict: 1, str: 1, Parcel: 1}
    assert parcel.content is items


@pytest.mark.parametrize(
    ("task", "name"), [("list_sources", "return"), ("ingest", "sources"), ("publish", "sources")]
)
def test_sources_travel_in_parcels(task: str, name: str) -> None:
    hint = get_type_hints(getattr(refresh_dataset, task).fn)[name]
    assert hint.__origin__ is Parcel
