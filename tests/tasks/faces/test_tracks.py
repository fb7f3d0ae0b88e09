"""Tracks: continuity, gaps, cuts and faces that are found twice."""

import numpy as np
import pytest

from datasets.faces.landmarks import Face, overlap
from tasks.faces.tracks import MAX_GAP, Sighting, Tracker, _Track


def face(x: float, y: float = 50.0, side: float = 40.0) -> Face:
    landmarks = np.linspace([x, y], [x + side, y + side], 478).astype(np.float32)
    return Face((x, y, x + side, y + side), landmarks)


def follow(frames: list[list[Face]], tracker: Tracker | None = None) -> list[Sighting]:
    tracker = tracker or Tracker()
    return [sight for index, faces in enumerate(frames) for sight in tracker.add(index, faces)[0]]


def test_a_moving_face_is_one_track() -> None:
    seen = follow([[face(3.0 * index)] for index in range(20)])
    assert {sight.track for sight in seen} == {0}
    assert [sight.index for sight in seen] == list(range(20))
    assert all(sight.found for sight in seen)


def test_two_faces_keep_their_numbers_whatever_the_order() -> None:
    frames = [[face(10), face(200)] if index % 2 else [face(200), face(10)] for index in range(10)]
    seen = follow(frames)
    left = {sight.track for sight in seen if sight.landmarks[0, 0] < 100}
    right = {sight.track for sight in seen if sight.landmarks[0, 0] > 100}
    assert len(left) == len(right) == 1
    assert left != right


def test_short_gaps_are_filled_in_a_line() -> None:
    frames = [[face(0)], *[[] for _ in range(MAX_GAP)], [face(12)]]
    seen = follow(frames)
    assert [sight.index for sight in seen] == list(range(MAX_GAP + 2))
    assert [sight.found for sight in seen] == [True] + [False] * MAX_GAP + [True]
    starts = [float(sight.landmarks[0, 0]) for sight in seen]
    assert starts == pytest.approx(np.linspace(0, 12, MAX_GAP + 2))


def test_longer_gaps_end_a_track() -> None:
    tracker = Tracker()
    tracker.add(0, [face(0)])
    for index in range(1, MAX_GAP + 2):
        assert tracker.add(index, [])[1] == []
    seen, ended = tracker.add(MAX_GAP + 2, [face(0)])
    assert ended == [0]
    assert [sight.track for sight in seen] == [1]


def test_a_jump_is_another_face() -> None:
    assert [sight.track for sight in follow([[face(0)], [face(100)]])] == [0, 1]


def test_cuts_end_all_tracks() -> None:
    tracker = Tracker()
    tracker.add(0, [face(0), face(100)])
    assert tracker.cut() == [0, 1]
    assert tracker.cut() == []
    assert [sight.track for sight in tracker.add(1, [face(0)])[0]] == [2]


def test_one_face_found_twice_is_one() -> None:
    assert len(follow([[face(0), face(2)]])) == 1


def test_overlap() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == pytest.approx(1)
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (20, 0, 30, 10)) == 0
    assert overlap((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_crossing_faces_keep_their_tracks() -> None:
    # Two faces at different heights pass each other; the one in front hides nothing.
    frames = [[face(4.0 * i, 50.0), face(200 - 4.0 * i, 68.0)] for i in range(50)]
    frames = [list(reversed(each)) if i % 3 else each for i, each in enumerate(frames)]
    seen = follow(frames)
    assert {sight.track for sight in seen} == {0, 1}
    for track, top in ((0, 50.0), (1, 68.0)):
        assert {float(s.landmarks[0, 1]) for s in seen if s.track == track} == {top}


def test_faces_that_compete_for_a_track_are_assigned_together() -> None:
    # The first face fits both tracks and the left one better; the second fits that one alone.
    seen = follow([[face(20.0), face(46.0)], [face(31.0), face(8.0)]])
    after = {float(s.landmarks[0, 0]): s.track for s in seen if s.index == 1}
    assert after == {8.0: 0, 31.0: 1}


def test_a_fast_face_is_found_again_after_a_gap() -> None:
    frames = [[face(6.0 * index)] if index not in (8, 9, 10, 11) else [] for index in range(20)]
    seen = follow(frames)
    assert {sight.track for sight in seen} == {0}
    assert [sight.index for sight in seen] == list(range(20))


def test_speed_is_per_frame_also_over_a_gap() -> None:
    """Half of the new speed and half of the old one, so it approaches 10 pixels a frame."""
    track = _Track(0, 0, face(100))
    for index, speed in ((3, 5.0), (4, 7.5), (10, 8.75)):
        track.go_on(index, face(100 + 10 * index))
        np.testing.assert_allclose(track.speed, (speed, 0), atol=1e-6)
    left, top, right, bottom = track.face.box
    expected = track.expected(12)
    assert expected == pytest.approx((left + 17.5, top, right + 17.5, bottom))
