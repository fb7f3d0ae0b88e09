"""Tables of faults, and where their texts are; `mutants.py` explains the fields."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutants_tests import TESTS

OWN = Path(__file__).parent.name
"""This folder, which is not searched for texts."""


@dataclass(frozen=True)
class Fault:
    """One line of a table."""

    file: str
    text: str
    instead: str
    wrong: str


def read_table(path: Path) -> list[Fault]:
    """The faults of a table.

    Raises:
        ValueError: the file is not a table of faults.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("fault", [])
        faults = [Fault(**entry) for entry in entries]
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise ValueError(f"{path} is not a table of faults: {error}") from error
    if not faults:
        raise ValueError(f"{path} has no [[fault]]")
    return faults


def locate(root: Path, fault: Fault) -> list[Path]:
    """The files, relative to `root`, that match the fault's glob and contain its text."""
    found = []
    for path in sorted(root.glob(fault.file)):
        relative = path.relative_to(root)
        own = relative.parts[0] not in (TESTS, OWN)
        visible = not any(part.startswith(".") for part in relative.parts)
        if path.is_file() and own and visible and fault.text in path.read_text(encoding="utf-8"):
            found.append(relative)
    return found
