import cv2
import numpy as np
import pytest

from datasets.faces.landmarks import FaceMeshDetector
from datasets.media import Picture
from tasks.faces.looks import SIZES, look_of, mean_look, unlikeness
from tasks.faces.people import Stretch, group_people
from tests.support.portrait import portrait


def look(seed: int, wobble: float = 0.0) -> np.ndarray:
    """A look of somebody; `wobble` is how far light and pose have changed."""
    rng, other = np.random.default_rng(seed), np.random.default_rng(99 + seed)
    parts = [rng.standard_normal(size) + wobble * other.standard_normal(size) for size in SIZES]
    return np.concatenate([part / np.linalg.norm(part) for part in parts]).astype(np.float32)


def stretch(
    first: int,
    last: int,
    who: int,
    x: float = 100.0,
    size: float = 80.0,
    wobble: float = 0.0,
    shot: int = 0,
) -> Stretch:
    box = np.array([x, 50.0, x + size, 50.0 + size])
    return Stretch(shot, first, last, box, box, look(who, wobble), (last - first + 1) * size**2)


def test_a_person_is_known_again_after_a_gap_and_over_a_cut_at_another_place() -> None:
    tracks = [
        stretch(0, 50, 1),
        stretch(80, 120, 1, wobble=0.2),
        stretch(130, 200, 1, x=400, size=160, wobble=0.2),
    ]
    assert group_people(tracks) == [[0, 1, 2]]


def test_who_is_seen_at_the_same_time_is_another_person() -> None:
    tracks = [stretch(0, 50, 1), stretch(40, 90, 1, x=300)]
    assert group_people(tracks) == [[0], [1]]
    # Found again while it was still being followed: two frames are not a second person.
    assert group_people([stretch(0, 50, 1), stretch(49, 90, 1)]) == [[0, 1]]


def test_two_people_who_take_turns_stay_two() -> None:
    tracks = [stretch(0, 49, 1), stretch(50, 99, 2), stretch(100, 149, 1), stretch(150, 199, 2)]
    assert group_people(tracks) == [[0, 2], [1, 3]]


def test_people_are_numbered_as_they_are_first_seen_and_from_the_left() -> None:
    tracks = [
        stretch(10, 60, 3, x=10, size=300),
        stretch(0, 60, 2, x=400, size=40),
        stretch(0, 60, 1, x=20, size=40),
    ]
    assert group_people(tracks) == [[2], [1], [0]]


def test_a_face_that_comes_back_to_its_place_within_a_shot_may_look_less_alike() -> None:
    first, wobble = stretch(0, 50, 1), 0.6
    limit = unlikeness(look(1), look(1, wobble))
    assert 1.0 < limit < 1.5
    assert group_people([first, stretch(60, 99, 1, wobble=wobble)]) == [[0, 1]]
    assert group_people([first, stretch(60, 99, 1, x=400, wobble=wobble)]) == [[0], [1]]
    assert group_people([first, stretch(60, 99, 1, size=160, wobble=wobble)]) == [[0], [1]]
    # After a cut the same place says nothing: interviews show one face after the other there.
    assert group_people([first, stretch(60, 99, 1, wobble=wobble, shot=1)]) == [[0], [1]]


def test_a_look_does_not_depend_on_place_size_and_roll_but_on_the_face() -> None:
    image = portrait(320)
    with FaceMeshDetector(max_faces=1) as detector:
        mesh = detector.detect(image)[0].landmarks
    whole = look_of(Picture.of(image), mesh)
    turn = cv2.getRotationMatrix2D((160, 160), 20, 0.7) + np.array([[0, 0, 15.0], [0, 0, 15.0]])
    turned = cv2.warpAffine(image, turn, (320, 320), borderMode=cv2.BORDER_REFLECT)
    moved = look_of(Picture.of(turned), mesh @ turn[:, :2].T + turn[:, 2])
    darker = look_of(Picture.of((image * 0.8).astype(np.uint8)), mesh)
    other = look_of(Picture.of(np.ascontiguousarray(image[:, :, ::-1])), mesh)
    assert unlikeness(whole, whole) == pytest.approx(0, abs=1e-6)
    assert unlikeness(whole, moved) < 0.6
    assert unlikeness(whole, darker) < 0.6
    # Other colours of skin and hair are half of another face.
    assert unlikeness(whole, other) > 0.8
    assert unlikeness(mean_look(np.stack([whole, whole])), whole) == pytest.approx(0, abs=1e-5)
