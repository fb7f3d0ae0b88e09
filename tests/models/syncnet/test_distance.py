"""The search over shifts finds the shift that was made."""

import pytest
import torch

from models.syncnet.distance import mean_distances, sync_distance


def features(seed: int, count: int = 100) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("late", [-15, -4, 0, 3, 15])
def test_late_sound_has_a_negative_offset(late: int) -> None:
    lips = features(0)
    found = sync_distance(lips, lips.roll(late, 0))
    assert found.offset == -late
    assert found.confidence > 3


def test_search_width_bounds_the_offset() -> None:
    lips = features(0)
    assert abs(sync_distance(lips, lips.roll(9, 0), max_shift=5).offset) <= 5


def test_unrelated_sound_gives_no_confidence() -> None:
    found = sync_distance(features(0), features(1))
    assert found.confidence < 0.5
    assert found.distance == pytest.approx(8.0, abs=0.5)


def test_distances_equal_the_plain_loop() -> None:
    lips, sound = features(0, 20), features(1, 20)
    padded = torch.cat([torch.zeros(15, 32), sound, torch.zeros(15, 32)])
    loop = torch.stack(
        [
            torch.nn.functional.pairwise_distance(lips[i : i + 1], padded[i : i + 31])
            for i in range(20)
        ]
    ).mean(0)
    assert torch.allclose(mean_distances(lips, sound), loop, atol=1e-5)


def test_unequal_features_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        sync_distance(features(0), features(1, 50))
    with pytest.raises(ValueError, match="n > 0"):
        sync_distance(features(0, 0), features(1, 0))
