"""Which picture shows the network who it is."""

from collections.abc import Sequence

import numpy as np
import pytest

from datasets.errors import UserError
from models.latentsync.config import REFERENCES
from tasks.lipsync.references import (
    MOST_STILLS,
    AwayFaces,
    StillFaces,
    check_reference,
    make_references,
)


def faces_by_number(asked: list[int]):  # type: ignore[no-untyped-def]
    """Pictures that say their position, and a note of which were asked for."""

    def faces(positions: Sequence[int]) -> np.ndarray:
        asked.extend(positions)
        return np.array([np.full((2, 2, 3), each) for each in positions])

    return faces


def poses(yaws: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.array([[yaw, 0.0, 0.0, 5.0] for yaw in yaws])


def test_each_frame_shows_itself_as_published() -> None:
    assert make_references("frame", np.zeros((3, 4)), np.zeros(3), faces_by_number([])) is None


def test_a_still_is_calm_and_turned_as_the_window_is() -> None:
    # The head turns from -20 to 20 degrees; every second mouth is open.
    yaws = np.linspace(-20, 20, 81)
    openings = np.where(np.arange(81) % 2, 0.08, 0.005)
    still = StillFaces(poses(yaws), openings, faces_by_number([]))
    for start in (0, 30, 65):
        window = np.arange(start, start + 16)
        chosen = still.nearest(window)
        assert openings[chosen] == 0.005
        assert abs(yaws[chosen] - np.median(yaws[window])) <= 5
        assert (still(window) == chosen).all()
        assert still(window).shape == (16, 2, 2, 3)


def test_an_open_mouth_in_the_right_pose_is_no_still() -> None:
    openings = np.full(50, 0.1)
    openings[40:] = 0.001
    still = StillFaces(poses([0.0] * 40 + [30.0] * 10), openings, faces_by_number([]))
    assert still.nearest(np.arange(16)) >= 40


def test_where_no_mouth_closes_the_least_open_ones_are_calm() -> None:
    openings = np.linspace(0.2, 0.1, 50)
    still = StillFaces(poses([0.0] * 50), openings, faces_by_number([]))
    assert still.nearest(np.arange(16)) == 49


def test_few_stills_are_held_and_each_is_made_once() -> None:
    rng = np.random.default_rng(0)
    turned = np.cumsum(rng.normal(0, 2, (5000, 4)), axis=0)
    asked: list[int] = []
    still = StillFaces(turned, np.zeros(5000), faces_by_number(asked))
    for start in range(0, 4984, 12):
        still(np.arange(start, start + 16))
    assert 1 < len(asked) <= MOST_STILLS
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("start", [0, 20, 44])
def test_another_moment_is_at_least_sixteen_frames_away(start: int, step: int) -> None:
    away = AwayFaces(90, faces_by_number([]))
    window = np.arange(start, start + 16 * step, step)
    shown = away(window)[:, 0, 0, 0]
    assert shown.min() - window.max() >= 1 or window.min() - shown.max() >= 1
    assert (np.abs(shown - window) >= 16).all()
    assert (np.diff(shown) == step).all()
    assert shown.min() >= 0
    assert shown.max() < 90


def test_another_moment_of_a_short_shot_is_its_end() -> None:
    shown = AwayFaces(20, faces_by_number([]))(np.arange(16))[:, 0, 0, 0]
    assert shown.tolist() == [16, 17, 18, *[19] * 13]


@pytest.mark.parametrize("count", [18, 20, 31])
def test_at_the_end_of_a_short_shot_another_moment_is_its_beginning(count: int) -> None:
    window = np.arange(count - 16, count)
    shown = AwayFaces(count, faces_by_number([]))(window)[:, 0, 0, 0]
    assert shown.tolist() == np.maximum(window - 16, 0).tolist()


def test_names_are_checked() -> None:
    for name in REFERENCES:
        check_reference(name)
    with pytest.raises(UserError, match="must be frame, still, away, got 'own'"):
        check_reference("own")


def test_a_still_is_bent_into_the_pose_of_every_frame() -> None:
    """The still of frame 0 has a white square that moves with the points of each frame."""
    from datasets.faces.points import SHAPE

    base = np.random.default_rng(0).uniform(10, 54, (len(SHAPE), 2))
    shapes = np.stack([base + np.array([step, 0]) for step in range(20)])
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[24:40, 20:36] = 255
    still = StillFaces(
        poses([0.0] * 20),
        np.array([0.0] + [1.0] * 19),
        lambda positions: np.stack([picture for _ in positions]),
        shapes,
    )
    window = still(np.array([0, 5, 10, 19, 19]))
    middles = [float(np.nonzero(each[32, :, 0] > 127)[0].mean()) for each in window]
    assert middles == pytest.approx([27.5, 32.5, 37.5, 46.5, 46.5], abs=0.6)
    assert (window[3] == window[4]).all()
