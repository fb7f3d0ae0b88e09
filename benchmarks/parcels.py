"""The cost of Prefect's handling of a list of sources, passed on as a list and as a parcel.

    python -m benchmarks.parcels                 100,000 sources, two minutes

One task returns the list and two take it, as in refresh-dataset. The time of the same flow for an
empty list is subtracted: that is the cost of a flow with three tasks.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from datasets.sources.items import SourceItem
from flows.support.parcel import Parcel
from flows.support.prefect_local import prefect_server

SOURCES = 100_000
BAR_S = 1.0
"""Seconds that handing on this many sources may cost."""


@dataclass
class Cost:
    """Seconds beyond those of an empty list."""

    sources: int
    as_list_s: float
    as_parcel_s: float


def make_sources(count: int) -> list[SourceItem]:
    """Sources as a folder of videos lists them; there are no files."""
    names = [f"{number % 50:03d}/{number:06d}.mp4" for number in range(count)]
    return [SourceItem(name, f"/videos/{name}", name, name[:3]) for name in names]


@task(cache_policy=NO_CACHE)
def give(value: Parcel[Any]) -> Any:
    return value.content


@task(cache_policy=NO_CACHE)
def take(value: Any) -> None:
    return


@flow
def hand_on(value: Parcel[Any]) -> None:
    """Puts sources in a parcel and passes it on twice."""
    given = give(value)
    take(given)
    take(given)


def seconds(value: Any) -> float:
    began = time.perf_counter()
    hand_on(Parcel(value))
    return time.perf_counter() - began


def measure(count: int) -> Cost:
    """Needs Prefect's server."""
    items = make_sources(count)
    seconds([])
    nothing = min(seconds([]) for _ in range(3))
    as_list = seconds(items) - nothing
    return Cost(count, as_list, min(seconds(Parcel(items)) for _ in range(3)) - nothing)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parcels", description=__doc__)
    parser.add_argument("--sources", type=int, default=SOURCES)
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    options = parser.parse_args(argv)
    with prefect_server():
        cost = measure(options.sources)
    each = 1e6 / cost.sources
    print(f"{cost.sources} sources through three tasks, beyond an empty list:")
    print(f"  as a list   {cost.as_list_s:7.2f} s, {cost.as_list_s * each:.0f} us a source")
    print(f"  as a parcel {max(cost.as_parcel_s, 0):7.2f} s, at most {BAR_S:g} s is wanted")
    if options.output:
        options.output.write_text(json.dumps(asdict(cost)) + "\n", encoding="utf-8")
    return 0 if cost.as_parcel_s < BAR_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
