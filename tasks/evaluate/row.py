"""The numbers of one clip while they are gathered, and why some are missing."""

import math
from dataclasses import dataclass, field


@dataclass
class Row:
    """Names of numbers with their values and reasons."""

    values: dict[str, float] = field(default_factory=dict)
    """NaN, or infinite, where there is no number."""
    reasons: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, value: float, reason: str = "") -> None:
        """Take a number; the reason says why it is none, or is empty."""
        self.values[name] = value
        if reason:
            self.reasons[name] = reason

    def lack(self, name: str, reason: str) -> None:
        """Take that there is no such number."""
        self.note(name, math.nan, reason)


def too_short(frames: int, what: str) -> str:
    """Why clips of so many frames have no number."""
    return f"clips of {frames} frames are too short: {what}"
