"""A worker needs as much memory for a long video as for a short one, and a driver as much
for many records as for few."""

from pathlib import Path

import pytest

from benchmarks import overhead
from benchmarks.memory import measure, repeated
from tests.support.mutations import make_sources

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SHORT_MIN, LONG_MIN = 4.0, 12.0
"""Minutes. The shorter one has more clips than are held until their rivals are known."""
MOST_GROWTH = 32 << 20
"""Bytes. Pictures kept would be gigabytes; what is measured are libraries that settle down."""
RECORDS = 2000
MOST_DRIVER_GROWTH = 6 << 20
"""Bytes for three quarters of the records: 4 kB each, less than the smallest clip."""


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    make_sources(tmp_path)
    peaks = []
    for minutes in (SHORT_MIN, LONG_MIN):
        video = repeated(tmp_path / "good.mp4", tmp_path / "long.mp4", 60 * minutes)
        usage = measure(video, "stub", resolution=64)
        assert usage.minutes == pytest.approx(minutes, rel=0.05)
        assert usage.clips >= 6 * minutes - 2
        peaks.append(usage.peak_bytes)
    assert peaks[1] - peaks[0] < MOST_GROWTH, peaks


def test_the_driver_holds_no_clips() -> None:
    cost = overhead.measure(RECORDS, workers=2, step=RECORDS // 4)
    assert [records for records, _ in cost.steps][-1] == RECORDS
    assert len(cost.steps) == 4
    assert cost.growth_bytes < MOST_DRIVER_GROWTH, cost.steps
