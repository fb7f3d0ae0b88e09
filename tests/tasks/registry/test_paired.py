"""Two models clip by clip, by values worked out by hand."""

import numpy as np
import pytest

from tasks.registry.metric import ClipValues
from tasks.registry.paired import (
    clips_needed,
    mean,
    median_size,
    paired_difference,
    paired_interval,
    part_of,
)


def values(sync: list[float | None], offset: list[float] | None = None) -> ClipValues:
    count = len(sync)
    found: ClipValues = {
        "clips": [f"clip-{number}" for number in range(count)],
        "speakers": [f"speaker-{number}" for number in range(count)],
        "values": {"sync_c": sync},
        "how": {"sync_c": "mean", "mouth_offset": "median_size"},
    }
    if offset is not None:
        found["values"]["mouth_offset"] = [*offset]
    return found


def test_a_difference_is_known_better_than_either_value() -> None:
    hard = [1.0, 5.0, 9.0, 3.0, 7.0, 2.0]
    found = paired_difference("sync_c", values([each + 0.5 for each in hard]), values([*hard]))
    assert found is not None
    assert found["value"] == pytest.approx(0.5)
    assert (found["low"], found["high"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert found["n"] == 6


def test_only_clips_that_both_have_count_and_the_order_does_not() -> None:
    theirs = values([1.0, 2.0, 3.0, None])
    ours = values([5.0, None, 4.0, 9.0])
    ours["clips"] = ["clip-2", "clip-1", "clip-0", "clip-3"]
    found = paired_difference("sync_c", ours, theirs)
    assert found is not None
    # clip-2: 5 - 3, clip-0: 4 - 1.
    assert found["value"] == pytest.approx(2.5)
    assert found["n"] == 2


def test_the_metrics_own_statistic_is_used() -> None:
    ours, theirs = values([1.0] * 3, [-4.0, 4.0, -4.0]), values([1.0] * 3, [1.0, -1.0, 1.0])
    found = paired_difference("mouth_offset", ours, theirs)
    assert found is not None
    assert found["value"] == 3.0
    assert median_size(np.array([-4.0, 1.0, 2.0])) == 2.0


def test_what_nobody_measured_has_no_difference() -> None:
    assert paired_difference("fid", values([1.0]), values([1.0])) is None
    assert paired_difference("sync_c", values([None]), values([1.0])) is None


def test_clips_of_one_speaker_count_as_alike() -> None:
    rng = np.random.default_rng(0)
    before, after = np.zeros(12), np.repeat(rng.normal(size=3), 4)
    many = [f"{number}" for number in range(12)]
    few = [f"{number // 4}" for number in range(12)]
    widths = []
    for speakers in (many, few):
        found = paired_interval(before, after, speakers, mean, "x", "x")
        widths.append(found["high"] - found["low"])
    assert widths[1] > 1.5 * widths[0]


def test_how_many_clips_show_a_loss() -> None:
    # Differences -1 and 1: deviation 1.1547 for four; (1.96 * 1.1547 / 0.5)^2 = 20.49.
    ours, theirs = values([1.0, 3.0, 1.0, 3.0]), values([2.0, 2.0, 2.0, 2.0])
    assert clips_needed("sync_c", ours, theirs, 0.5) == 21
    assert clips_needed("sync_c", ours, theirs, 100.0) == 2
    assert clips_needed("sync_c", values([1.0, 2.0]), values([1.0, 1.0]), 0.5) is None
    assert clips_needed("fid", ours, theirs, 0.5) is None


def test_a_part_keeps_the_first_clips_and_what_is_asked_for() -> None:
    whole = values([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    part = part_of(whole, ["mouth_offset", "fid"], 2)
    assert part["clips"] == ["clip-0", "clip-1"]
    assert part["values"] == {"mouth_offset": [4.0, 5.0]}
    assert part["how"] == {"mouth_offset": "median_size"}
