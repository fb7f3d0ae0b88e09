"""The face models by themselves, against mediapipe's own FaceMesh on the same frames."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from datasets.faces.mediapipe_models import (
    FULL_RANGE,
    SHORT_RANGE,
    DetectionModel,
    LandmarkModel,
    Region,
    quiet_stderr,
    region_of,
)
from tests.support.portrait import blank, moving, portrait


@pytest.fixture(scope="module")
def model() -> Iterator[LandmarkModel]:
    with LandmarkModel() as made:
        yield made


def face_mesh(frames: list[np.ndarray]) -> np.ndarray:
    """Landmarks (t, 478, 2) of the solution as it comes, in pixels."""
    with quiet_stderr():
        from mediapipe.python.solutions.face_mesh import FaceMesh

        with FaceMesh(max_num_faces=1, refine_landmarks=True) as mesh:
            found = [mesh.process(frame).multi_face_landmarks[0].landmark for frame in frames]
    size = np.array(frames[0].shape[1::-1])
    return np.array([[(point.x, point.y) for point in each] for each in found]) * size


def test_landmarks_are_those_of_face_mesh(model: LandmarkModel) -> None:
    frames = moving(12, side=400)
    expected = face_mesh(frames)
    landmarks = expected[0]
    for frame, truth in zip(frames[1:], expected[1:], strict=True):
        found = model.points(frame, region_of(landmarks))
        assert found is not None
        assert found.shape == (478, 2)
        assert found.dtype == np.float32
        assert np.abs(found - truth).max() < 0.15
        landmarks = found


def test_a_cut_out_part_gives_the_same(model: LandmarkModel) -> None:
    image = portrait(400)
    region = region_of(face_mesh([image])[0])
    left, top, right, bottom = (int(side) for side in region.box)
    left, top = max(left, 0), max(top, 0)
    moved = Region(region.x - left, region.y - top, region.side, region.roll)
    whole, part = model.points(image, region), model.points(image[top:bottom, left:right], moved)
    assert whole is not None
    assert part is not None
    assert np.abs(part + np.array([left, top]) - whole).max() < 0.1


def test_keeps_nothing_between_calls(model: LandmarkModel) -> None:
    image = portrait(400)
    region = region_of(face_mesh([image])[0])
    first = model.points(image, region)
    assert model.points(blank(400), region) is None
    second = model.points(image, region)
    assert first is not None
    assert second is not None
    assert (first == second).all()


def test_a_rolled_face(model: LandmarkModel) -> None:
    image = portrait(400)
    upright = model.points(image, region_of(face_mesh([image])[0]))
    assert upright is not None
    turn = cv2.getRotationMatrix2D((200, 200), 40, 1.0)
    expected = upright @ turn[:, :2].T + turn[:, 2]
    rolled = cv2.warpAffine(image, turn, (400, 400))
    region = region_of(expected)
    assert np.degrees(region.roll - region_of(upright).roll) == pytest.approx(-40, abs=0.5)
    found = model.points(rolled, region)
    assert found is not None
    assert np.abs(found - expected).mean() < 2


@pytest.mark.parametrize("kind", [SHORT_RANGE, FULL_RANGE])
def test_detectors_find_the_face(kind: str) -> None:
    expected = region_of(face_mesh([portrait(400)])[0])
    with DetectionModel(kind) as detector:
        assert detector.regions(blank()) == []
        (found,) = detector.regions(portrait(400))
        assert detector.regions(portrait(400)) == [found]
    assert np.hypot(found.x - expected.x, found.y - expected.y) < 0.2 * expected.side
    assert 0.7 < found.side / expected.side < 1.4


def test_sureness_can_be_asked_for() -> None:
    with DetectionModel(SHORT_RANGE, min_confidence=0.999) as detector:
        assert detector.regions(portrait(400)) == []
