"""Measures of a clip's quality move the way their names say."""

import cv2
import numpy as np
import pytest

from tasks.ingest.face_quality import Quality, QualityMeter
from tests.support.portrait import portrait


def measure(face: np.ndarray, landmarks: np.ndarray, found: tuple[bool, ...] = (True,)) -> Quality:
    meter = QualityMeter()
    for each in found:
        meter.add(face, landmarks, each)
    return meter.result()


@pytest.fixture
def mesh() -> np.ndarray:
    points = np.zeros((478, 2), np.float32)
    points[0], points[1] = (100, 50), (200, 150)
    points[234], points[454], points[4] = (100, 100), (200, 100), (150, 110)
    points[points.sum(axis=1) == 0] = (150, 100)
    return points


def test_known_values(mesh: np.ndarray) -> None:
    flat = np.full((64, 64, 3), 77, np.uint8)
    quality = measure(flat, mesh, (True, True, False, True))
    assert quality.face_px == pytest.approx(100)
    assert quality.coverage == 0.75
    assert quality.brightness == pytest.approx(77)
    assert quality.sharpness == 0
    assert quality.yaw_deg == pytest.approx(0, abs=0.1)


def test_blur_lowers_sharpness(mesh: np.ndarray) -> None:
    sharp = portrait(256)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 3)
    assert measure(blurred, mesh).sharpness < 0.2 * measure(sharp, mesh).sharpness


def test_yaw_has_no_sign(mesh: np.ndarray) -> None:
    left, right = mesh.copy(), mesh.copy()
    left[4, 0] -= 30
    right[4, 0] += 30
    flat = np.zeros((8, 8, 3), np.uint8)
    assert measure(flat, left).yaw_deg == pytest.approx(measure(flat, right).yaw_deg)
    assert measure(flat, right).yaw_deg > 20
