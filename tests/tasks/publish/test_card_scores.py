import numpy as np
import pandas as pd
import pytest

from tasks.publish.card_scores import BINS, SCORES, Distribution, distributions
from tests.support.card_rows import make_rows


def clips(count: int = 6, **columns: object) -> pd.DataFrame:
    """Clips, every other one accepted, without any score."""
    frame = pd.DataFrame({"num_frames": [100] * count, "scorer": ["a"] * count})
    for score in SCORES:
        if score.column != "seconds":
            frame[score.column] = np.nan
    return frame.assign(accepted=[number % 2 == 0 for number in range(count)], **columns)


def named(found: tuple[Distribution, ...]) -> dict[str, Distribution]:
    return {each.name: each for each in found}


def test_accepted_and_refused_are_counted_apart() -> None:
    found = named(distributions(clips(av_offset_frames=[0.0, 0, 2, 2, -20, np.nan]), {}))
    offsets = found["av_offset_frames"]
    middles = [(a + b) / 2 for a, b in zip(offsets.edges, offsets.edges[1:], strict=False)]
    assert middles == list(range(-15, 16))
    assert (offsets.accepted[15], offsets.accepted[17], offsets.accepted[0]) == (1, 1, 1)
    assert (offsets.refused[15], offsets.refused[17]) == (1, 1)
    assert (offsets.outside, offsets.unmeasured) == (1, 1)
    assert offsets.quantiles_refused == pytest.approx((0.1, 1.0, 1.9))
    # Scores that nobody measured are not there.
    assert set(found) == {"av_offset_frames", "seconds"}


def test_each_scorer_has_its_own_confidence_and_threshold() -> None:
    frame = clips(sync_confidence=[1.0, 2, 3, 4, 5, 6], scorer=["b", "b", "a", "a", "", "a"])
    frame.loc[4, "sync_confidence"] = np.nan
    found = named(distributions(frame, {"min_confidence": {"a": 3.5}}))
    assert [name for name in found if "conf" in name] == ["sync_confidence-a", "sync_confidence-b"]
    assert found["sync_confidence-a"].limits == (3.5,)
    assert found["sync_confidence-b"].limits == ()
    assert sum(found["sync_confidence-a"].accepted) == 1
    same = named(distributions(frame, {"min_confidence": 3.0}))
    assert same["sync_confidence-b"].limits == (3.0,)


def test_every_clip_is_in_a_bin_or_unmeasured() -> None:
    rows = pd.DataFrame(make_rows(500))
    rows = rows[rows["clip_id"] != ""].assign(accepted=lambda row: row["verdict"] == "accepted")
    for each in distributions(rows, {"max_yaw_deg": 55.0, "max_offset_frames": 12.0}):
        assert sum(each.accepted) + sum(each.refused) + each.unmeasured == len(rows)
        assert len(each.edges) == len(each.accepted) + 1 == len(each.refused) + 1
        assert list(each.edges) == sorted(set(each.edges))
        assert all(each.edges[0] < limit < each.edges[-1] for limit in each.limits)


@pytest.mark.parametrize("value", [0.0, 1e-9, 7.0, 1e6])
def test_one_value_has_bins_around_it(value: float) -> None:
    for column in ("face_px", "sharpness", "sync_confidence"):
        found = distributions(clips(1, **{column: [value]}), {})
        edges = next(each.edges for each in found if each.name.startswith(column))
        assert len(edges) == BINS + 1
        assert np.isfinite(edges).all()
        assert (np.diff(edges) > 0).all()


def test_bins_of_lengths_hold_equally_many_frame_counts() -> None:
    frame = clips(251).assign(num_frames=range(251))
    lengths = named(distributions(frame, {}))["seconds"]
    counts = np.add(lengths.accepted, lengths.refused)
    # No comb: every bin but those at the ends holds equally many lengths.
    assert len(set(counts[1:-1])) == 1


def test_scores_that_the_ledger_has_beside_are_shown() -> None:
    found = named(distributions(clips(hyperiqa=[40.0] * 6, number=[1] * 6), {}))
    assert found["hyperiqa"].title == "hyperiqa"
    assert "number" not in found


def test_infinite_values_are_none() -> None:
    found = named(distributions(clips(2, face_px=[np.inf, 5.0]), {}))["face_px"]
    assert (found.unmeasured, sum(found.accepted), sum(found.refused)) == (1, 0, 1)
    assert found.quantiles_accepted is None
