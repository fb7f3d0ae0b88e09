import cv2
import numpy as np
import pytest

from models.latentsync.mask import face_mask, soft_edge
from tasks.lipsync.colour_match import PAST, ColourMatch, border_difference
from tests.support.portrait import portrait

SIDE = 128


@pytest.fixture(scope="module")
def region() -> np.ndarray:
    return soft_edge(face_mask(SIDE), 3)[0, 0].numpy()


def match_colours(painted: np.ndarray, source: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A face without any before it."""
    return ColourMatch()(0, painted, source, region)


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


def shifts(count: int, least: float, most: float) -> np.ndarray:
    """How much brighter each of some generated faces is, levels."""
    return np.random.default_rng(3).uniform(least, most, count)


def matched(levels: np.ndarray, region: np.ndarray, match: ColourMatch, first: int = 0) -> list:
    """Faces of one stretch from a position on, matched one after another."""
    faces = [generated(region, np.full(3, each, np.float32), mouth=False) for each in levels]
    return [match(first + at, each, source(), region) for at, each in enumerate(faces)]


def added(levels: np.ndarray, region: np.ndarray, faces: list) -> np.ndarray:
    """What was added to each face in its middle, levels."""
    inner = region > 0.99
    return np.array(
        [
            float((face.astype(float) - source())[inner].mean()) - level
            for face, level in zip(faces, levels, strict=True)
        ]
    )


def test_colours_that_tremble_are_matched_by_their_mean(region: np.ndarray) -> None:
    levels = shifts(24, 6, 9)
    found = added(levels, region, matched(levels, region, ColourMatch()))
    for position, each in enumerate(found):
        assert each == pytest.approx(-levels[max(0, position - PAST) : position + 1].mean(), abs=1)


def test_light_that_changes_at_once_is_followed_at_once(region: np.ndarray) -> None:
    levels = np.array([2.0] * 8 + [20.0] * 8)
    found = added(levels, region, matched(levels, region, ColourMatch()))
    assert np.abs(found + levels).max() < 1


def test_faces_after_a_gap_begin_anew(region: np.ndarray) -> None:
    match = ColourMatch()
    matched(np.full(6, 2.0), region, match)
    found = added(np.array([6.0]), region, matched(np.array([6.0]), region, match, first=7))
    assert found[0] == pytest.approx(-6, abs=1)


@pytest.mark.parametrize("begin", [1, 3, PAST, 11])
@pytest.mark.parametrize("remembered", [True, False])
def test_a_stretch_that_is_gone_on_with_gives_the_same(
    begin: int, remembered: bool, region: np.ndarray
) -> None:
    levels = shifts(16, 3, 8)
    whole = matched(levels, region, ColourMatch())
    before = ColourMatch()
    matched(levels[:begin], region, before)
    match = ColourMatch(before.position, before.planes) if remembered else ColourMatch()
    first = match.first_needed(begin)
    assert first == (begin if remembered else max(0, begin - PAST))
    again = matched(levels[first:], region, match, first)[begin - first :]
    assert len(again) == len(whole[begin:])
    for one, other in zip(again, whole[begin:], strict=True):
        assert np.array_equal(one, other)
