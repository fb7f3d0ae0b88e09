import numpy as np

from datasets.faces.landmarks import Face
from tasks.lipsync.face_scan import MAX_GAP, main_track


def face(x: float, size: float) -> Face:
    points = np.array([[x, 0.0], [x + size, 0.0], [x + size / 2, size]])
    return Face((x, 0.0, x + size, size), points)


def test_the_largest_face_is_followed_though_it_is_not_always_the_first() -> None:
    frames = [[face(300, 40), face(10 + index, 50)] for index in range(20)]
    found = main_track(frames)
    assert sorted(found) == [*range(20)]
    assert [found[index][0, 0] for index in range(20)] == [10 + index for index in range(20)]


def test_short_gaps_are_filled_and_long_ones_are_not() -> None:
    frames = [[face(float(index), 50)] for index in range(60)]
    for index in range(10, 10 + MAX_GAP):
        frames[index] = []
    for index in range(40, 40 + MAX_GAP + 1):
        frames[index] = []
    found = main_track(frames)
    # After the long gap it is another track, and the first one is the longer.
    assert sorted(found) == [*range(40)]
    assert found[12][0, 0] == 12


def test_no_face_is_no_track() -> None:
    assert main_track([[], []]) == {}
