"""Windows: in bounds, far enough apart, the same for the same position."""

import numpy as np
import pytest

from tasks.train.windows import rng_for, two_starts


def test_every_start_that_can_be_is_drawn() -> None:
    rng = np.random.default_rng(0)
    pairs = {two_starts(rng, 40, 16, 16) for _ in range(4000)}
    possible = {(a, b) for a in range(25) for b in range(25) if abs(a - b) >= 16}
    assert pairs == possible


def test_clips_without_room_are_said() -> None:
    with pytest.raises(ValueError, match="no room"):
        two_starts(np.random.default_rng(0), 20, 16, 16)


def test_positions_have_random_numbers_of_their_own() -> None:
    places = [(seed, step, index) for seed in range(3) for step in range(3) for index in range(3)]
    drawn = {place: int(rng_for(*place).integers(1 << 60)) for place in places}
    assert len(set(drawn.values())) == len(places)
    assert drawn[2, 1, 0] == int(rng_for(2, 1, 0).integers(1 << 60))
