"""The funnel: what came in, what is left, and why the rest was refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Step:
    """A count, and whether it counts something good."""

    name: str
    count: int
    kind: Literal["", "good", "bad"] = ""


def refusals(reasons: Mapping[str, int]) -> list[Step]:
    """The number refused for each reason, the most frequent first."""
    ranked = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return [Step(f"refused: {reason}", count, "bad") for reason, count in ranked]


def funnel(
    came: Sequence[tuple[str, int]], accepted: int, reasons: Mapping[str, int]
) -> list[Step]:
    """The steps in the order in which they are shown.

    Args:
        came: what came in, as (name, count).
        accepted: number of accepted clips.
        reasons: reasons of refusals, with their counts.
    """
    return [
        *(Step(name, count) for name, count in came),
        Step("clips accepted", accepted, "good"),
        *refusals(reasons),
    ]
