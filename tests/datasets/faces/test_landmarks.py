"""FaceMesh on a real portrait, and the measures taken on landmarks."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from datasets.faces.landmarks import (
    SEARCH_EVERY_BESIDE,
    FaceMeshDetector,
    face_size,
    head_pose,
    mouth_opening,
    yaw_deg,
)
from tests.support.portrait import blank, moving, portrait


@pytest.fixture(scope="module")
def detector() -> Iterator[FaceMeshDetector]:
    with FaceMeshDetector(max_faces=2) as made:
        yield made


@pytest.fixture(autouse=True)
def _fresh(detector: FaceMeshDetector) -> None:
    detector.reset()


def test_finds_the_face(detector: FaceMeshDetector) -> None:
    (face,) = detector.detect(portrait())
    assert face.landmarks.shape == (478, 2)
    assert face.landmarks.dtype == np.float32
    left, top, right, bottom = face.box
    assert face.landmarks[:, 0].min() == pytest.approx(left)
    assert face.landmarks[:, 1].max() == pytest.approx(bottom)
    assert right - left > 80
    assert bottom - top > 80
    brow, nose, chin = (face.landmarks[point, 1] for point in (10, 4, 152))
    assert brow < nose < chin


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_lies_or_hangs_is_seen_as_it_is(
    detector: FaceMeshDetector, quarters: int
) -> None:
    (upright,) = detector.detect(portrait())
    detector.reset()
    (found,) = detector.detect(np.rot90(portrait(), quarters).copy())
    # Turned back around the middle of the picture.
    turned = found.landmarks - (np.array(portrait().shape[1::-1]) - 1) / 2
    for _ in range(quarters):
        turned = np.stack([-turned[:, 1], turned[:, 0]], axis=1)
    expected = upright.landmarks - (np.array(portrait().shape[1::-1]) - 1) / 2
    off = np.linalg.norm(turned - expected, axis=1) / face_size(upright.landmarks[None])[0]
    assert off.mean() < 0.03
    assert off.max() < 0.15


def test_a_picture_without_a_face(detector: FaceMeshDetector) -> None:
    assert detector.detect(blank()) == []


def test_two_faces_largest_first(detector: FaceMeshDetector) -> None:
    small = cv2.resize(portrait(), (240, 240), interpolation=cv2.INTER_AREA)
    pair = np.full((320, 560, 3), 90, np.uint8)
    pair[40:280, :240] = small
    pair[:, 240:] = portrait()
    first, second = detector.detect(pair)
    assert first.box[0] > 240 > second.box[2]


def test_reset_forgets_the_face(detector: FaceMeshDetector) -> None:
    (before,) = detector.detect(portrait())
    moved = np.roll(portrait(), 60, axis=1)
    detector.reset()
    (after,) = detector.detect(moved)
    shift = (after.landmarks - before.landmarks).mean(axis=0)
    assert shift == pytest.approx([60, 0], abs=4)


def test_what_was_seen_before_a_reset_changes_nothing(detector: FaceMeshDetector) -> None:
    frames = [blank(), *moving(14)]

    def points() -> list[np.ndarray]:
        return [face.landmarks for frame in frames for face in detector.detect(frame)]

    first = points()
    detector.reset()
    for frame in moving(9, reach=30.0):
        detector.detect(frame[:, ::-1])
    detector.reset()
    second = points()
    assert len(first) == len(second) >= 13
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_a_larger_face_takes_the_place_of_a_small_one() -> None:
    small = cv2.resize(portrait(), (160, 160), interpolation=cv2.INTER_AREA)
    before = np.full((400, 800, 3), 90, np.uint8)
    before[:160, :160] = small
    after = before.copy()
    after[:, 400:] = cv2.resize(portrait(), (400, 400))
    with FaceMeshDetector(max_faces=1) as made:
        assert [made.detect(before)[0].box[2] < 160 for _ in range(5)] == [True] * 5
        boxes = [made.detect(after)[0].box for _ in range(SEARCH_EVERY_BESIDE + 1)]
    assert boxes[-1][0] > 400
    assert len(boxes) == SEARCH_EVERY_BESIDE + 1


def test_a_face_that_leaves_and_another_that_comes(detector: FaceMeshDetector) -> None:
    left, right = np.full((320, 700, 3), 90, np.uint8), np.full((320, 700, 3), 90, np.uint8)
    left[:, :320], right[:, 380:] = portrait(), portrait()
    assert detector.detect(left)[0].box[2] < 320
    (face,) = detector.detect(right)
    assert face.box[0] > 380


def test_refuses_no_faces() -> None:
    with pytest.raises(ValueError, match="max_faces is 0"):
        FaceMeshDetector(max_faces=0)


def test_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with FaceMeshDetector() as made:
        made.detect(portrait())
        made.reset()
        made.detect(portrait())
    assert capfd.readouterr().err == ""


def test_mouth_opening_follows_the_mouth(detector: FaceMeshDetector) -> None:
    (face,) = detector.detect(portrait())
    still = np.repeat(face.landmarks[None], 3, axis=0)
    wide = still.copy()
    lower = [14, 87, 317, 178, 402]
    wide[1, lower, 1] += 5
    wide[2, lower, 1] += 10
    opening = mouth_opening(wide)
    assert opening.shape == (3,)
    assert opening[0] < opening[1] < opening[2]
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    assert mouth_opening(3 * wide @ turn.T + 50) == pytest.approx(opening, rel=1e-3)


def test_yaw_of_a_turned_head() -> None:
    # A head seen from the front and turned by known angles, projected orthographically.
    mesh = np.zeros((1, 478, 3))
    mesh[0, 4] = (0, 0, 1.3)
    mesh[0, 234], mesh[0, 454] = (-1, 0, 0), (1, 0, 0)
    for angle in (-40, 0, 15, 30):
        turn = np.deg2rad(angle)
        x = mesh[..., 0] * np.cos(turn) + mesh[..., 2] * np.sin(turn)
        seen = np.stack([x, mesh[..., 1]], axis=-1) * 100 + 200
        assert yaw_deg(seen)[0] == pytest.approx(angle, abs=0.1)


def test_face_size_is_never_zero() -> None:
    assert (face_size(np.zeros((2, 478, 2))) > 0).all()


def turned(yaw: float, pitch: float, roll: float, size: float = 100.0) -> np.ndarray:
    """A mesh (1, 478, 2) of which eyes, forehead, nose and cheeks are those of a turned head."""
    head = np.zeros((478, 3))
    # x to the image's right, y down, z towards the camera; eyes' corners at the origin's height.
    for index, place in {33: (-4.45, 0, 0), 263: (4.45, 0, 0), 10: (0, -5.6, 1.3)}.items():
        head[index] = place
    for index, place in {2: (0, 4.75, 2.9), 4: (0, 3.2, 4.0), 234: (-7.6, 1, -4.5)}.items():
        head[index] = place
    head[454] = (7.6, 1, -4.5)
    a, b, c = np.deg2rad([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    points = head @ (about_z @ about_x @ about_y).T
    return (points[None, :, :2] * size / 10 + 300).astype(np.float32)


@pytest.mark.parametrize("pitch", [-25.0, -8.0, 0.0, 12.0, 30.0])
@pytest.mark.parametrize("roll", [-30.0, 0.0, 20.0])
def test_pitch_and_roll_are_those_of_the_head(pitch: float, roll: float) -> None:
    pose = head_pose(turned(0.0, pitch, roll))[0]
    assert pose[0] == pytest.approx(0.0, abs=0.5)
    assert pose[1] == pytest.approx(pitch, abs=0.5)
    assert pose[2] == pytest.approx(roll, abs=0.5)


def test_poses_of_turned_heads_differ_in_order() -> None:
    yaws = [float(head_pose(turned(yaw, 5.0, 0.0))[0, 0]) for yaw in (-30, -10, 0, 10, 30)]
    assert yaws == sorted(yaws)
    assert yaws[2] == pytest.approx(0.0, abs=0.5)


def test_the_size_is_logarithmic() -> None:
    small, large = (head_pose(turned(0, 0, 0, size))[0, 3] for size in (80.0, 160.0))
    assert large - small == pytest.approx(np.log(2), abs=1e-4)
