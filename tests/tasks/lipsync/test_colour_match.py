import cv2
import numpy as np
import pytest

from models.latentsync.mask import face_mask, soft_edge
from tasks.lipsync.colour_match import border_difference, match_colours
from tests.support.portrait import portrait

SIDE = 128


@pytest.fixture(scope="module")
def region() -> np.ndarray:
    return soft_edge(face_mask(SIDE), 3)[0, 0].numpy()


def source() -> np.ndarray:
    return np.ascontiguousarray(portrait(SIDE))


def generated(region: np.ndarray, shift: np.ndarray, mouth: bool = True) -> np.ndarray:
    """The source in other light, with another mouth, mixed in as the model mixes it."""
    picture = source().astype(np.float32) + shift
    if mouth:
        picture = np.ascontiguousarray(picture)
        cv2.ellipse(picture, (64, 90), (18, 12), 0, 0, 360, (60, 10, 10), -1)
    mixed = source() + region[..., None] * (picture - source())
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shift", [(12, -9, 6), (-15, -15, -15), (0, 0, 0)])
def test_another_colour_becomes_the_sources(shift: tuple[int, ...], region: np.ndarray) -> None:
    painted = generated(region, np.array(shift, np.float32))
    before = border_difference(painted, source(), region)
    matched = match_colours(painted, source(), region)
    after = border_difference(matched, source(), region)
    assert np.abs(after).max() < 1
    assert not any(shift) or np.abs(before).max() > 4
    # The mouth is the generated one, in the same light as the rest.
    mouth = np.s_[86:94, 56:72]
    assert np.abs(matched[mouth].mean(axis=(0, 1)) - [60, 10, 10] + np.array(shift)).max() < 4


def test_light_from_the_side_is_followed(region: np.ndarray) -> None:
    slope = np.linspace(-15, 15, SIDE, dtype=np.float32)[None, :, None].repeat(SIDE, axis=0)
    painted = generated(region, slope, mouth=False)
    matched = match_colours(painted, source(), region)
    inner = region > 0.9
    left, right = inner.copy(), inner.copy()
    left[:, 64:], right[:, :64] = False, False
    for side in (left, right):
        before = np.abs((painted.astype(float) - source())[side].mean())
        after = np.abs((matched.astype(float) - source())[side].mean())
        assert before > 4
        assert after < 1


def test_nothing_changes_where_nothing_is_repainted(region: np.ndarray) -> None:
    painted = generated(region, np.array([20, 0, 0], np.float32))
    matched = match_colours(painted, source(), region)
    kept = region == 0
    assert kept.any()
    assert (matched[kept] == painted[kept]).all()


def test_pictures_that_have_nothing_in_common_are_left_alone(region: np.ndarray) -> None:

    flat = np.zeros((8, 8, 3), np.uint8)
    none = np.zeros((8, 8), np.float32)
    assert match_colours(flat, flat + 9, none) is flat


@pytest.mark.parametrize("level", [-70, 70])
def test_a_shift_that_would_add_to_the_difference_is_left_out(
    level: int, region: np.ndarray
) -> None:
    """A cheek in the other light weighs less than hair that only one of the two shows."""
    painted = generated(region, np.full(3, 6.0, np.float32), mouth=False).astype(float)
    painted[30:92, 84:] += level * region[30:92, 84:, None]
    painted = np.clip(np.rint(painted), 0, 255).astype(np.uint8)
    before, after = (
        np.abs(border_difference(each, source(), region)).max()
        for each in (painted, match_colours(painted, source(), region))
    )
    assert before > 4
    assert after <= before + 0.5


@pytest.mark.parametrize("level", [-15, -30])
def test_the_mean_along_the_edge_counts_a_little_as_well(level: int, region: np.ndarray) -> None:
    """Hair that only the result shows: the skin is as bright as it was, the mean is not."""
    painted = source().astype(float)
    painted[40:92, 94:] += level * region[40:92, 94:, None]
    painted = np.clip(np.rint(painted), 0, 255).astype(np.uint8)
    matched = match_colours(painted, source(), region)
    before, after = (
        np.abs(border_difference(each, source(), region)).max() for each in (painted, matched)
    )
    assert before > 1.4
    assert after <= max(1.1, before - 0.8)
    # Not much more than a level: most of the edge is right as it is.
    assert np.abs(matched.astype(float) - painted).max() <= 2
