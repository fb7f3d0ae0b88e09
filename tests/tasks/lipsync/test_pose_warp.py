import cv2
import numpy as np
import pytest

from datasets.faces.points import FACE_OVAL, SHAPE
from tasks.lipsync.face_oval import JAW_ROOM, oval_weights
from tasks.lipsync.pose_warp import JAW, warp_to
from tests.support.portrait import portrait

SIDE = 128


def shape() -> np.ndarray:
    """An oval, and points inside it."""
    turn = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    oval = np.stack([64 + 40 * np.sin(turn), 60 - 52 * np.cos(turn)], axis=1)
    inner = np.random.default_rng(0).uniform(40, 88, (len(SHAPE) - len(FACE_OVAL), 2))
    return np.concatenate([oval, inner])


def test_a_face_follows_its_points() -> None:
    matrix = np.array([[0.9, 0.05, 9.0], [-0.04, 1.05, -3.0]])
    image = np.ascontiguousarray(portrait(SIDE))
    target = shape() @ matrix[:, :2].T + matrix[:, 2]
    expected = cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    bent = warp_to(image, shape(), target)
    inside = np.s_[20:108, 20:108]
    difference = np.abs(bent[inside].astype(int) - expected[inside])
    assert difference.mean() < 1.5
    assert np.abs(image[inside].astype(int) - expected[inside]).mean() > 10


def test_points_in_a_line_say_nothing() -> None:
    image = np.ascontiguousarray(portrait(SIDE))
    line = np.repeat(np.arange(len(SHAPE), dtype=float)[:, None], 2, axis=1)
    assert warp_to(image, line, line) is image


def test_the_same_pose_is_the_same_picture() -> None:
    image = np.ascontiguousarray(portrait(SIDE))
    difference = np.abs(warp_to(image, shape(), shape()).astype(int) - image)
    assert difference.mean() < 1.5


def test_a_jaw_that_opens_does_not_bend_the_face() -> None:
    image = np.ascontiguousarray(portrait(SIDE))
    opened = shape()
    opened[JAW] += [0, 15]
    assert (warp_to(image, shape(), opened) == warp_to(image, shape(), shape())).all()
    assert set(list(FACE_OVAL)[JAW]) == {
        397,
        365,
        379,
        378,
        400,
        377,
        152,
        148,
        176,
        149,
        150,
        136,
        172,
    }


def test_a_new_face_ends_where_the_face_does_and_has_room_for_the_jaw() -> None:
    outline = shape()[: len(FACE_OVAL)] - np.array([0, 10])
    weights = oval_weights(outline, SIDE, JAW_ROOM)
    assert weights[50, 64] == pytest.approx(1)
    # Cheeks are inside, ears are not.
    assert weights[50, 64 + 34] > 0.9
    assert weights[50, 64 + 48] < 0.05
    # The chin is at row 102, and may come down.
    assert weights[106, 64] > 0.9
    assert weights[124, 64] < 0.1
    assert weights.min() >= 0
    assert weights.max() <= 1
    # A tenth of a pixel moves the edge, too: it does not jump.
    moved = oval_weights(outline + np.array([0.1, 0]), SIDE, JAW_ROOM)
    assert 0 < np.abs(moved - weights).max() < 0.1
