"""A worker needs as much memory for a long video as for a short one, and a driver as much
for many records as for few."""

from pathlib import Path

import pytest

from benchmarks.memory import measure, repeated
from tests.mutations import make_sources

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SHORT_MIN, LONG_MIN = 1.5, 6.0
MOST_GROWTH = 24 << 20
"""Bytes. Sound kept as a whole would take 17 MiB more for each copy, pictures gigabytes."""


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
