"""Small faces in large pictures, and that looking for them is bounded."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest

from datasets.faces.landmarks import PIXELS_PER_TILE, FaceMeshDetector
from datasets.faces.mediapipe_models import Region
from datasets.faces.search import LEAST_SHARE, SMALLEST_FACE, FaceSearch, tiles
from datasets.media import Picture
from tests.support.portrait import portrait

BASE = 900
SIZES = [(1920, 1080), (3840, 2160)]


@pytest.fixture(scope="module")
def detector() -> Iterator[FaceMeshDetector]:
    with FaceMeshDetector() as made:
        yield made


@pytest.fixture(autouse=True)
def _fresh(detector: FaceMeshDetector) -> None:
    detector.reset()


@lru_cache
def truth() -> np.ndarray:
    """Landmarks of the large portrait."""
    with FaceMeshDetector() as made:
        return made.detect(cv2.resize(portrait(), (BASE, BASE)))[0].landmarks


@lru_cache
def scenery(width: int, height: int) -> np.ndarray:
    """Soft coloured patches without a face."""
    patches = np.random.default_rng(0).integers(40, 200, (height // 40, width // 40, 3), np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)


def composed(size: tuple[int, int], face_px: float, x: int, y: int) -> tuple[np.ndarray, ...]:
    """A large picture with a face `face_px` wide at x, y, and the face's landmarks."""
    side = round(face_px * BASE / np.ptp(truth()[:, 0]))
    image = scenery(*size).copy()
    small = cv2.resize(portrait(), (side, side), interpolation=cv2.INTER_AREA)
    image[y : y + side, x : x + side] = small
    return image, truth() * (side / BASE) + [x, y]


@pytest.mark.parametrize(("width", "height"), [*SIZES, (1080, 1920), (640, 360), (300, 200)])
def test_every_small_face_lies_whole_in_a_fitting_tile(width: int, height: int) -> None:
    boxes = tiles(width, height)
    rng = np.random.default_rng(1)
    for _ in range(2000):
        size = rng.uniform(SMALLEST_FACE, 0.2 * max(width, height))
        if size > min(width, height):
            continue
        x, y = rng.uniform(0, width - size), rng.uniform(0, height - size)
        assert any(
            left <= x + 1e-6
            and top <= y + 1e-6
            and x + size <= right + 1e-6
            and y + size <= bottom + 1e-6
            and size >= 0.999 * LEAST_SHARE * max(right - left, bottom - top)
            for left, top, right, bottom in boxes
        ), (size, x, y)


def test_tiles_are_few() -> None:
    assert tiles(640, 360) == [(0, 0, 640, 360)]
    assert len(tiles(1920, 1080)) <= 8
    assert len(tiles(3840, 2160)) <= 32


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("face_px", [60, 85, 120])
def test_small_faces_are_found_at_once(
    detector: FaceMeshDetector, size: tuple[int, int], face_px: int
) -> None:
    rng = np.random.default_rng(face_px)
    for _ in range(3):
        x, y = (int(rng.integers(0, side - 4 * face_px)) for side in size)
        image, expected = composed(size, face_px, x, y)
        detector.reset()
        (face,) = detector.detect(image)
        distance = np.linalg.norm(face.landmarks - expected, axis=1)
        assert distance.mean() < 1.5


def test_a_small_face_is_followed_as_it_moves(detector: FaceMeshDetector) -> None:
    for step in range(25):
        image, expected = composed((1920, 1080), 70, 300 + 9 * step, 400 + 4 * step)
        (face,) = detector.detect(image)
        assert np.linalg.norm(face.landmarks - expected, axis=1).mean() < 1.5


def test_a_small_face_that_comes_later_is_found(detector: FaceMeshDetector) -> None:
    assert detector.detect(scenery(1920, 1080)) == []
    image, _ = composed((1920, 1080), 80, 700, 300)
    turns = len(tiles(1920, 1080)) * int(np.ceil(PIXELS_PER_TILE / (1920 * 1080)))
    assert any(detector.detect(image) for _ in range(turns))


def test_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def noted(name: str) -> Callable[..., list[Region]]:
        def look(*_: object) -> list[Region]:
            looked.append(name)
            return []

        return look

    for name in ("whole", "sweep", "next_tile"):
        monkeypatch.setattr(FaceSearch, name, noted(name))
    frames = 240
    with FaceMeshDetector() as made:
        for _ in range(frames):
            assert made.detect(scenery(1920, 1080)) == []
    assert looked.count("sweep") == 1
    assert looked.count("whole") == frames / 2
    assert looked.count("next_tile") <= frames * 1920 * 1080 / PIXELS_PER_TILE


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_region_is_turned_until_its_face_is_upright(quarters: int) -> None:
    """Whatever the detector that found it took for up."""
    picture = Picture.of(np.rot90(portrait(), quarters).copy())
    with closing(FaceSearch()) as search:
        (found,) = search.whole(picture)
        # As FaceMesh's own graph takes it, its eyes beside one another.
        upright = search.upright(picture, replace(found, roll=0.0))
    off = upright.roll + quarters * np.pi / 2
    assert abs((off + np.pi) % (2 * np.pi) - np.pi) < np.radians(20)
    assert (upright.x, upright.y, upright.side) == (found.x, found.y, found.side)
