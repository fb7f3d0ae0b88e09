"""No second contour under the chin where the repainted region ends."""

import cv2
import numpy as np
import pytest

from models.latentsync.mask import face_mask, soft_edge
from tasks.lipsync.lower_edge import FIRST_ROW, REACH, blend_lower_edge, lower_edge_energy

SIDE = 128
REGION = soft_edge(face_mask(SIDE), 3)[0, 0].numpy()


def neck() -> np.ndarray:
    """Skin that gets darker downwards."""
    picture = np.full((SIDE, SIDE, 3), (190, 150, 130), np.float32)
    picture -= np.linspace(0, 30, SIDE)[:, None, None]
    return np.rint(picture).astype(np.uint8)


def with_shadow() -> np.ndarray:
    """The same with a shadow where another chin would be, and a mouth."""
    picture = neck()
    cv2.ellipse(picture, (64, 116), (40, 14), 0, 0, 360, (70, 45, 35), -1)
    cv2.ellipse(picture, (64, 84), (16, 5), 0, 0, 360, (90, 20, 20), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.5)


def shown(painted: np.ndarray) -> np.ndarray:
    mixed = neck() + REGION[..., None] * (painted.astype(np.float32) - neck())
    return np.rint(mixed).astype(np.uint8)


def test_the_line_along_the_edge_goes_away() -> None:
    source, painted = neck(), with_shadow()
    before = lower_edge_energy(shown(painted), REGION)
    after = lower_edge_energy(shown(blend_lower_edge(painted, source, REGION)), REGION)
    assert before > 20 * lower_edge_energy(source, REGION)
    assert after < 0.2 * before


def test_the_mouth_and_all_above_the_edge_stay() -> None:
    painted = with_shadow()
    # Cheeks of another colour are no matter of the lower edge.
    painted[:70] += 30
    blended = blend_lower_edge(painted, neck(), REGION)
    beyond = REGION < 0.5
    beyond[: round(FIRST_ROW * SIDE)] = False
    away = cv2.distanceTransform((~beyond).astype(np.uint8), cv2.DIST_L2, 5)
    far = away > REACH * SIDE + 0.5
    assert far[84, 64]
    assert (blended[far] == painted[far]).all()
    assert (blended[: round(0.4 * SIDE)] == painted[: round(0.4 * SIDE)]).all()


def test_a_face_that_fits_is_left_alone() -> None:
    assert (blend_lower_edge(neck(), neck(), REGION) == neck()).all()
    painted = with_shadow()
    for region in (np.zeros((SIDE, SIDE)), np.ones((SIDE, SIDE))):
        assert blend_lower_edge(painted, neck(), region) is painted
        assert np.isnan(lower_edge_energy(painted, region))


def test_what_is_in_front_of_the_edge_does_not_colour_the_chin() -> None:
    hand = np.zeros((SIDE, SIDE), np.float32)
    hand[:, 40:88] = 1
    source = neck()
    source[hand > 0] = (20, 200, 20)
    blended = blend_lower_edge(neck(), source, REGION, hand)
    assert np.abs(blended.astype(int) - neck()).max() <= 1
    assert np.abs(blend_lower_edge(neck(), source, REGION).astype(int) - neck()).max() > 30


@pytest.mark.parametrize("step", [4, 8])
def test_energy_is_that_of_a_slope_across_the_edge(step: int) -> None:
    ramp = (np.arange(SIDE, dtype=np.float32)[:, None, None] - 80) * step
    ramp = np.broadcast_to(np.clip(ramp, 0, 255), (SIDE, SIDE, 3))
    region = np.zeros((SIDE, SIDE), np.float32)
    region[:90] = 1
    region[90:94] = np.array([0.8, 0.6, 0.4, 0.2])[:, None]
    assert lower_edge_energy(np.rint(ramp).astype(np.uint8), region) == pytest.approx(
        step**2, rel=0.02
    )
