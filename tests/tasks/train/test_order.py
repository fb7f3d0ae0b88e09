"""The order of clips and windows: everything once, evenly, and found again from any place."""

from itertools import islice

import pytest

from tasks.train.order import Course, Mixing

SIZES = (5, 1, 8, 3, 4, 4, 7)
"""Clips of each shard, 32 together."""


def clips(course: Course, lane: int, count: int, start: int = 0) -> list[tuple[int, int, int]]:
    """Epoch, shard and number in it of so many clips of a lane."""
    flat = (
        (piece.epoch, piece.shard, number)
        for piece in course.pieces(lane, start)
        for number in range(piece.first, piece.last)
    )
    return list(islice(flat, count))


@pytest.mark.parametrize("lanes", [1, 2, 3, 8, 31, 40])
def test_every_clip_is_read_once_in_every_epoch(lanes: int) -> None:
    course = Course(SIZES, 7, lanes)
    enough = 3 * -(-32 // lanes)
    read = [place for lane in range(lanes) for place in clips(course, lane, enough)]
    everything = {(shard, number) for shard, size in enumerate(SIZES) for number in range(size)}
    for epoch in range(3):
        found = [(shard, number) for where, shard, number in read if where == epoch]
        assert len(found) == 32
        assert set(found) == everything


@pytest.mark.parametrize("lanes", [2, 3, 5])
def test_lanes_read_as_many_clips_as_each_other(lanes: int) -> None:
    course = Course(SIZES, 7, lanes)
    lengths = [
        [last - first for first, last in (course.stretch(epoch, lane) for epoch in range(lanes))]
        for lane in range(lanes)
    ]
    assert {sum(each) for each in lengths} == {32}
    for epoch in range(lanes):
        of_epoch = [each[epoch] for each in lengths]
        assert max(of_epoch) - min(of_epoch) <= 1


def test_epochs_differ_and_seeds_do_too() -> None:
    course = Course(SIZES, 7, 1)
    orders = {tuple(course.shards(epoch)) for epoch in range(6)}
    assert len(orders) > 3
    assert tuple(Course(SIZES, 8, 1).shards(0)) != tuple(course.shards(0))
    assert tuple(Course(SIZES, 7, 4).shards(3)) == tuple(course.shards(3))


@pytest.mark.parametrize("lanes", [1, 3, 40])
def test_a_lane_goes_on_from_any_clip(lanes: int) -> None:
    course = Course(SIZES, 3, lanes)
    for lane in (0, lanes - 1):
        whole = clips(course, lane, 140)
        for start in (0, 1, 7, 31, 32, 33, 64, 100, 139):
            assert clips(course, lane, 140 - start, start) == whole[start:]


def test_shards_are_read_from_their_beginnings_to_their_ends() -> None:
    course = Course(SIZES, 3, 3)
    for lane in range(3):
        for piece in islice(course.pieces(lane, 0), 30):
            assert 0 <= piece.first < piece.last <= SIZES[piece.shard]
            assert len(piece) == piece.last - piece.first


@pytest.mark.parametrize("passed", [[0, 0, 0], [4, 2, 9], [10, 10, 10], [11, 10, 10], [30, 40, 35]])
def test_what_is_left_of_an_epoch_are_the_shards_that_are_not_finished(passed: list[int]) -> None:
    course = Course(SIZES, 3, 3)
    epoch, left = course.rest(passed)
    read = {place for lane, count in enumerate(passed) for place in clips(course, lane, count)}
    for earlier in range(epoch):
        assert all((earlier, shard, 0) in read for shard in range(len(SIZES)))
    for shard, size in enumerate(SIZES):
        finished = all((epoch, shard, number) in read for number in range(size))
        assert finished == (shard not in left)
    after = Course(SIZES, 3, 5, epoch, left)
    first = {
        (shard, number)
        for lane in range(5)
        for where, shard, number in clips(after, lane, 40)
        if where == epoch
    }
    assert first == {(shard, number) for shard in left for number in range(SIZES[shard])}
    # The epochs after that one are whole again.
    second = [
        (shard, number)
        for lane in range(5)
        for where, shard, number in clips(after, lane, 60)
        if where == epoch + 1
    ]
    assert len(second) == len(set(second)) == 32


@pytest.mark.parametrize("reach", [0, 4, 60])
def test_windows_go_out_once_each_and_not_too_late(reach: int) -> None:
    mixing = Mixing(5, 2, reach)
    order = sorted(range(3000), key=mixing.key)
    places = {window: place for place, window in enumerate(order[:2900])}
    assert set(range(2900 - reach)) <= set(places)
    assert all(abs(place - window) <= reach for window, place in places.items())
    moved = sum(place != window for window, place in places.items())
    assert moved == 0 if reach == 0 else moved > 1000
    assert [Mixing(5, 3, 60).key(window) for window in range(9)] != [
        Mixing(5, 2, 60).key(window) for window in range(9)
    ]


@pytest.mark.parametrize("reach", [0, 8, 50])
@pytest.mark.parametrize("count", [0, 1, 7, 49, 50, 51, 500, 1023, 1025])
def test_what_has_gone_out_is_known_without_the_windows(reach: int, count: int) -> None:
    mixing = Mixing(5, 2, reach)
    order = sorted(range(count + 3 * reach + 5), key=mixing.key)
    first, gone = mixing.gone(count)
    assert {*range(first), *gone} == set(order[:count])
    assert len(gone) == count - first <= reach
