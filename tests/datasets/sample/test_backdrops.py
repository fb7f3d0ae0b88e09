"""Backdrops fill the picture and are the same each time."""

import numpy as np
import pytest

from datasets.sample.backdrops import BACKDROPS, CUTAWAYS, paint


@pytest.mark.parametrize("number", range(len(BACKDROPS) + len(CUTAWAYS)))
def test_backdrop(number: int) -> None:
    scene = (*BACKDROPS, *CUTAWAYS)[number]
    picture = paint(scene, 96, 64, number)
    assert picture.shape == (64, 96, 3)
    assert picture.dtype == np.float32
    assert picture.min() >= 0
    assert picture.max() <= 255
    assert picture.std() > 3
    assert np.array_equal(picture, paint(scene, 96, 64, number))
