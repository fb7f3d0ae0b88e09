"""Cut-outs of people."""

from itertools import combinations

import numpy as np
import pytest

from datasets.sample.looks import LOOKS, Look
from datasets.sample.portrait import FACE_WIDTH, ZOOM, colour_matrix, over, portrait
from datasets.sample.voice import Voice


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_portrait_is_cut_out_with_landmarks_in_reading_order(number: int) -> None:
    person = portrait(LOOKS[number])
    side = round(512 * ZOOM)
    assert person.rgba.shape == (side, side, 4)
    alpha = person.rgba[..., 3]
    assert alpha[5, 5] == 0
    assert (np.diff(person.jaw[:, 0]) > -1.5 * ZOOM).all()
    for points in (*person.lips, *person.lids[0], *person.lids[1]):
        assert (np.diff(points[:, 0]) > 0).all()
        columns, rows = np.round(points).astype(int).T
        assert alpha[rows, columns].min() == 255
    top, inner_top, inner_bottom, bottom = person.lips
    assert (top[5, 1], inner_top[5, 1]) < (inner_top[5, 1], inner_bottom[5, 1])
    assert inner_bottom[5, 1] < bottom[5, 1] < person.jaw[10, 1]
    assert person.lids[0][0][0, 0] < person.lids[1][0][0, 0]
    width = (person.jaw[-1, 0] - person.jaw[0, 0]) / ZOOM
    assert width == pytest.approx(FACE_WIDTH, rel=0.1)


def test_faces_differ_in_shape_and_colour() -> None:
    people = [portrait(look) for look in LOOKS[:4]]
    for one, other in combinations(people, 2):
        relative = [person.jaw - person.jaw.mean(axis=0) for person in (one, other)]
        assert np.abs(relative[0] - relative[1]).max() > 1.0
        means = [person.rgba[250:450, 400:900].mean(axis=(0, 1)) for person in (one, other)]
        assert np.abs(means[0] - means[1]).max() > 4


def test_glasses_are_only_where_they_belong() -> None:
    person = portrait(LOOKS[2])
    assert person.glasses is not None
    changed = np.argwhere((person.rgba != person.bare).any(axis=2))
    eyes = np.concatenate([*person.lids[0], *person.lids[1]])
    assert len(changed) > 500
    assert changed[:, 0].max() < person.lips[0][:, 1].min()
    assert changed[:, 0].min() > eyes[:, 1].min() - 25 * ZOOM
    assert portrait(LOOKS[0]).glasses is None


def test_colour_matrix() -> None:
    plain = colour_matrix(Look(Voice()))
    assert plain == pytest.approx(np.hstack([np.eye(3), np.zeros((3, 1))]), abs=1e-6)
    grey = colour_matrix(Look(Voice(), saturation=0.0)) @ [200.0, 100.0, 50.0, 1.0]
    assert grey == pytest.approx(np.full(3, 0.299 * 200 + 0.587 * 100 + 0.114 * 50), rel=1e-5)
    red, _, blue = colour_matrix(Look(Voice(), sepia=1.0)) @ [100.0, 100.0, 100.0, 1.0]
    assert red > blue + 20
    assert colour_matrix(Look(Voice(), contrast=0.5)) @ [118.0, 118.0, 118.0, 1.0] == pytest.approx(
        np.full(3, 118.0), rel=1e-5
    )


def test_over_blends_premultiplied_colours() -> None:
    front = np.array([[[100, 0, 0, 128], [0, 0, 0, 0], [9, 9, 9, 255]]], np.uint8)
    back = np.full((1, 3, 4), 200, np.uint8)
    assert over(front, back).tolist() == [
        [[200, 100, 100, 228], [200, 200, 200, 200], [9, 9, 9, 255]]
    ]
