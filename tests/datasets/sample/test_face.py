"""Mouth and eyes of a portrait move as requested, and nothing else does."""

from itertools import pairwise

import numpy as np
import pytest

from datasets.sample.face import MAX_OPENING, Face
from datasets.sample.looks import LOOKS
from datasets.sample.portrait import ZOOM, Portrait, portrait


@pytest.fixture(scope="module")
def person() -> Portrait:
    return portrait(LOOKS[0])


def shown(person: Portrait, opening: float, spread: float = 0.0, blink: float = 0.0) -> np.ndarray:
    rgba = person.rgba.copy()
    Face(person).patch(opening, spread, blink, rgba)
    return rgba


def cavity_px(person: Portrait, rgba: np.ndarray) -> int:
    """Dark pixels between the mouth's corners, nose and chin."""
    left, right = (int(person.lips[0][end, 0]) for end in (0, -1))
    top, bottom = int(person.lips[0][5, 1]), int(person.lips[3][5, 1] + 10 * ZOOM)
    return int((rgba[top:bottom, left:right, :3].sum(axis=2) < 200).sum())


def chin_row(person: Portrait, rgba: np.ndarray) -> int:
    """Where the dark collar starts below the mouth."""
    column = int(person.jaw[10, 0])
    start = int(person.lips[3][5, 1] + 60)
    return start + int(np.argmax(rgba[start:, column, :3].sum(axis=1) < 120))


def test_the_mouth_opens_evenly(person: Portrait) -> None:
    areas = [cavity_px(person, shown(person, opening)) for opening in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert areas[0] < 120
    assert all(after > before + 60 for before, after in pairwise(areas))
    width = 0.88 * (person.lips[0][-1, 0] - person.lips[0][0, 0])
    assert areas[-1] > 0.3 * MAX_OPENING * width**2


def test_the_jaw_goes_down_with_it(person: Portrait) -> None:
    assert chin_row(person, shown(person, 1.0)) > chin_row(person, shown(person, 0.0)) + 4


def test_eyes_hair_and_body_stay(person: Portrait) -> None:
    changed = np.argwhere((shown(person, 1.0, 0.5) != person.rgba).any(axis=2))
    x0, y0, x1, y1 = Face(person).box
    assert changed[:, 0].min() >= y0
    assert changed[:, 0].max() < y1
    assert changed[:, 1].min() >= x0
    assert changed[:, 1].max() < x1
    assert y0 > person.lids[0][1][:, 1].max()


def test_the_patch_has_no_seam(person: Portrait) -> None:
    before, after = person.rgba.astype(int), shown(person, 1.0).astype(int)
    x0, y0, x1, y1 = Face(person).box
    for row in (y0, y1 - 1):
        assert np.abs(after[row, x0:x1] - before[row, x0:x1]).mean() < 2
    for column in (x0, x1 - 1):
        assert np.abs(after[y0:y1, column] - before[y0:y1, column]).mean() < 2


def test_spread_lips_are_wider_than_rounded_ones(person: Portrait) -> None:
    def dark_columns(spread: float) -> int:
        rgba = shown(person, 0.6, spread)
        row = int(person.lips[2][5, 1] + 2 * ZOOM)
        columns = slice(int(person.lips[0][0, 0]), int(person.lips[0][-1, 0]))
        return int((rgba[row, columns, :3].sum(axis=1) < 240).sum())

    assert dark_columns(1.0) > dark_columns(-1.0) + 8


def test_a_blink_moves_the_eyes_and_ends_as_it_began(person: Portrait) -> None:
    face, rgba = Face(person), person.rgba.copy()
    face.patch(0.0, 0.0, 0.0, rgba)
    open_eyes = rgba.copy()
    face.patch(0.0, 0.0, 1.0, rgba)
    changed = np.argwhere((rgba != open_eyes).any(axis=2))
    assert len(changed) > 1000
    assert changed[:, 0].max() < person.lips[0][:, 1].min()
    face.patch(0.0, 0.0, 0.0, rgba)
    assert np.array_equal(rgba, open_eyes)
