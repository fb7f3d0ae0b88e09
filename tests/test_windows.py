"""Windows: in bounds, far enough apart, the same for the same position."""

import numpy as np
import pytest

from datasets.clips import ClipStore
from datasets.errors import UserError
from datasets.windows import WindowSampler, rng_for, two_starts
from tests.small_dataset import write_small_dataset


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    return ClipStore(write_small_dataset(tmp_path_factory.mktemp("small"), num_frames=40))


def test_windows_are_apart_and_in_bounds(store: ClipStore) -> None:
    sampler = WindowSampler(store)
    drawn = [sampler.window(rng_for(1, step)) for step in range(200)]
    for window in drawn:
        assert 0 <= window.start <= 24
        assert 0 <= window.reference_start <= 24
        assert abs(window.start - window.reference_start) >= 16
    assert len({window.clip_id for window in drawn}) == 6
    assert drawn[7] == sampler.window(rng_for(1, 7))


def test_pairs_are_half_in_sync(store: ClipStore) -> None:
    sampler = WindowSampler(store)
    pairs = [sampler.sync_pair(rng_for(2, step)) for step in range(300)]
    share = np.mean([positive for *_, positive in pairs])
    assert 0.4 < share < 0.6
    for _, start, audio, positive in pairs:
        assert (start == audio) if positive else abs(start - audio) >= 16


def test_every_start_that_can_be_is_drawn() -> None:
    rng = np.random.default_rng(0)
    pairs = {two_starts(rng, 40, 16, 16) for _ in range(4000)}
    possible = {(a, b) for a in range(25) for b in range(25) if abs(a - b) >= 16}
    assert pairs == possible


def test_clips_without_room_are_said(store: ClipStore) -> None:
    with pytest.raises(UserError, match="longest clip has 40"):
        WindowSampler(store, num_frames=30, min_distance=16)
    with pytest.raises(ValueError, match="no room"):
        two_starts(np.random.default_rng(0), 20, 16, 16)


def test_positions_have_random_numbers_of_their_own() -> None:
    places = [(seed, step, index) for seed in range(3) for step in range(3) for index in range(3)]
    drawn = {place: int(rng_for(*place).integers(1 << 60)) for place in places}
    assert len(set(drawn.values())) == len(places)
    assert drawn[2, 1, 0] == int(rng_for(2, 1, 0).integers(1 << 60))
