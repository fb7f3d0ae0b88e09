import math
from collections.abc import Iterator

import numpy as np
import pytest
from skimage.data import astronaut

from datasets.faces.alignment import Aligner, align, align_points
from datasets.faces.landmarks import Face, FaceMeshDetector
from tasks.evaluate.metrics import LIPS, landmark_distance, landmarks_of, psnr
from tasks.registry.metric import metric


def test_numbers_carry_label_and_count() -> None:
    assert metric(2.0, "x", 3) == {"value": 2.0, "label": "x", "n": 3}
    assert metric(math.nan, "x", 3) == {"value": None, "label": "x", "n": 3}
    assert metric(2.0, "x", 0)["value"] is None


def test_the_reason_stands_where_a_number_is_missing() -> None:
    assert metric(math.nan, "x", 3, "too short")["reason"] == "too short"
    assert "reason" not in metric(1.0, "x", 3, "too short")


def test_psnr_is_that_of_the_masked_part() -> None:
    first = np.full((2, 8, 8, 3), 100, np.uint8)
    second = first.copy()
    second[:, 4:] += 10
    mask = np.zeros((8, 8), bool)
    mask[4:] = True
    assert psnr(first, second, mask) == pytest.approx(10 * math.log10(255**2 / 100))
    assert psnr(first, second) == pytest.approx(10 * math.log10(255**2 / 50))
    assert psnr(first, second, ~mask) == math.inf


def face(frames: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(0, 100, (frames, 478, 2))
    landmarks[:, 33], landmarks[:, 263] = (20, 30), (70, 30)
    return landmarks


def test_landmark_distance_is_about_the_mouth_alone() -> None:
    first = face()
    assert landmark_distance(first, first + 7) == pytest.approx(0.0, abs=1e-9)
    opened = first.copy()
    opened[:, LIPS] += (0, 5)
    assert landmark_distance(first, opened) == pytest.approx(10.0)
    assert landmark_distance(2 * first, 2 * opened) == pytest.approx(10.0)


def test_a_head_that_moves_differently_in_every_frame_is_no_distance() -> None:
    first = face(4)
    moved = first + np.array([[0, 0], [3, -2], [10, 5], [-7, 1]])[:, None]
    assert landmark_distance(first, moved) == pytest.approx(0.0, abs=1e-9)
    # One lip point of 40 off by 20 in one frame of 4, eyes 50 apart.
    moved[2, LIPS[7], 0] += 20
    assert landmark_distance(first, moved) == pytest.approx(100 * 20 / 40 / 4 / 50)


class Scripted:
    """Finds a face whose points all lie at a given place of the picture, or none."""

    def __init__(self, *places: float | None) -> None:
        self.places = list(places)
        self.sides: list[tuple[int, ...]] = []
        self.began = 0

    def reset(self) -> None:
        self.began += 1

    def detect(self, image: np.ndarray) -> list[Face]:
        self.sides.append(image.shape)
        place = self.places.pop(0)
        if place is None:
            return []
        return [Face((0, 0, 1, 1), np.full((478, 2), place, np.float32))]


def test_landmarks_are_in_pixels_of_the_face_and_go_straight_where_none_was_found() -> None:
    # 100 pixels with 35 on every side are shown as 320.
    scale = 320 / 170
    detector = Scripted(None, 55 * scale, None, None, 85 * scale, None)
    found, share = landmarks_of(np.zeros((6, 100, 100, 3), np.uint8), detector)  # type: ignore[arg-type]
    np.testing.assert_allclose(found[:, 200, 1], [20, 20, 30, 40, 50, 50], atol=1e-3)
    assert share == pytest.approx(2 / 6)
    assert set(detector.sides) == {(320, 320, 3)}
    assert detector.began == 1


@pytest.fixture(scope="module")
def detector() -> Iterator[FaceMeshDetector]:
    with FaceMeshDetector(max_faces=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def portrait(detector: FaceMeshDetector) -> tuple[np.ndarray, np.ndarray]:
    """The aligned face of scikit-image's portrait, uint8 (128, 128, 3), and its landmarks."""
    image = astronaut()
    found = detector.detect(image)[0]
    matrix = Aligner(128).matrix(found.landmarks)
    return align(image, matrix, 128), align_points(found.landmarks, matrix, 128)


def test_a_face_is_found_in_its_aligned_crop(
    portrait: tuple[np.ndarray, np.ndarray], detector: FaceMeshDetector
) -> None:
    face, expected = portrait
    frames = np.stack([face, np.zeros_like(face), face])
    landmarks, share = landmarks_of(frames, detector)
    assert share == pytest.approx(2 / 3)
    assert np.abs(landmarks[0] - expected)[list(LIPS)].mean() < 1.5
    assert np.abs(landmarks[1] - landmarks[0]).max() < 4


def test_no_face_is_no_number(detector: FaceMeshDetector) -> None:
    landmarks, share = landmarks_of(np.zeros((2, 64, 64, 3), np.uint8), detector)
    assert share == 0
    assert np.isnan(landmarks).all()
