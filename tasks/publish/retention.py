"""How long replaced versions of a dataset stay, for those who still read them.

A training or an evaluation reads the shards that its index named when it began. A refresh replaces
the index at once, but removes files only with the versions that nobody can be expected to
read any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from datasets.errors import UserError

DAY_S = 86_400.0


class ReplacedVersion(TypedDict):
    """A version that another one has replaced."""

    digest: str
    replaced_at: float
    """Seconds since 1970."""
    files: list[str]
    """Names of its files below `shards/`."""


@dataclass(frozen=True)
class Retention:
    """How many replaced versions stay whole.

    Args:
        keep_versions: replaced versions whose files stay, the latest ones.
        keep_days: versions that were replaced in the last so many days stay as well.
    """

    keep_versions: int = 2
    keep_days: float = 0.0

    def __post_init__(self) -> None:
        if self.keep_versions < 0 or self.keep_days < 0:
            raise UserError(
                f"{self.keep_versions} versions and {self.keep_days:g} days cannot be kept: give "
                "--keep-versions and --keep-days of 0 or more"
            )

    def of(self, replaced: Sequence[ReplacedVersion], now: float) -> list[ReplacedVersion]:
        """Those that stay.

        Args:
            replaced: oldest first.
            now: seconds since 1970.
        """
        latest = len(replaced) - self.keep_versions
        return [
            each
            for place, each in enumerate(replaced)
            if place >= latest or now - each["replaced_at"] < self.keep_days * DAY_S
        ]


def files_of(replaced: Sequence[ReplacedVersion]) -> list[str]:
    """The files of all these versions, each once."""
    return sorted({name for each in replaced for name in each["files"]})
