"""What a case found: how far each of its arrays is from the reference, and how far it may be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

BAR = 1e-4
"""Largest relative error that passes, in float32; a case may have bars of its own."""

Errors = Mapping[str, tuple[float, float]]
"""Error and bar of each array."""


@dataclass(frozen=True)
class Outcome:
    """The array of a case that is worst by its own bar."""

    error: float
    bar: float
    array: str = ""
    """Empty where a case has one error for all its arrays."""

    @classmethod
    def of(cls, found: float | Errors) -> Self:
        """The outcome of what a case module returns: one error, or one per array.

        Raises:
            ValueError: nothing was compared.
        """
        if not isinstance(found, Mapping):
            return cls(float(found), BAR)
        if not found:
            raise ValueError("nothing was compared: the case has none of the known arrays")
        worst = max(found, key=lambda array: _share(*found[array]))
        return cls(float(found[worst][0]), found[worst][1], worst)

    @property
    def passed(self) -> bool:
        return math.isfinite(self.error) and self.error <= self.bar

    def __str__(self) -> str:
        where = f"  {self.array}" if self.array else ""
        verdict = "pass" if self.passed else "fail"
        return f"{self.error:12.3e}  {verdict}  (bar {self.bar:.0e}){where}"


def _share(error: float, bar: float) -> float:
    """Of the bar that an error takes; no number at all is the worst."""
    if error == 0:
        return 0.0
    return error / bar if bar and not math.isnan(error) else math.inf
