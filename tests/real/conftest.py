"""Real footage, read once for all tests."""

from pathlib import Path

import pytest

from benchmarks.offsets import Footage, read_folder


@pytest.fixture(scope="session")
def footage(shared: Path) -> list[Footage]:
    """Landmarks and sound of the real clips of one speaker in one shot."""
    return read_folder(shared / "clips")[0]
