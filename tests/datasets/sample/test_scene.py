"""People before backdrops."""

import numpy as np
import pytest

from datasets.sample.looks import LOOKS
from datasets.sample.plan import Shot
from datasets.sample.scene import Camera, Person, Wander

SHOT = Shot(0, 50, 60.0, 0.5, 0.6, 1.2, 0.5)


def person(face_px: float = 60.0, x: float = 0.5) -> Person:
    return Person(LOOKS[0], 160, 120, face_px, x, 0.6, np.random.default_rng(1))


def test_wander_is_slow_and_bounded() -> None:
    curve = Wander.draw(np.random.default_rng(0))
    values = np.array([curve(t) for t in np.arange(0, 20, 0.04)])
    assert np.abs(values).max() <= 1
    assert values.std() > 0.2
    assert np.abs(np.diff(values)).max() < 0.12


def test_a_person_is_where_and_as_large_as_told() -> None:
    def hair(face_px: float, x: float) -> tuple[float, int]:
        alpha = person(face_px, x).render(0.0, 0.0, 0.0)[30, :, 3] > 128
        return float(np.flatnonzero(alpha).mean()), int(alpha.sum())

    (left, small), (right, _) = hair(40, 0.3), hair(40, 0.7)
    assert right - left == pytest.approx(0.4 * 160, abs=2)
    _, large = hair(60, 0.3)
    assert large > 1.2 * small


def test_the_head_moves_and_the_picture_stays_sharp() -> None:
    somebody = person()
    first, later = somebody.render(0.0, 0.0, 0.0), somebody.render(2.0, 0.0, 0.0)
    assert first.shape == (120, 160, 4)
    assert np.abs(first.astype(int) - later).mean() > 1


def test_motion_on_a_coarse_grid_has_no_steps() -> None:
    still = Person(LOOKS[0], 160, 120, 60.0, 0.5, 0.6, np.random.default_rng(1), liveliness=0.0)
    columns = still._fine(np.broadcast_to(still._columns, (32, 42)).astype(np.float32))
    assert columns.shape == (120, 160)
    steps = np.diff(columns[0])
    assert steps == pytest.approx(np.full(159, steps[0]), rel=1e-3)


def test_an_empty_picture_is_the_backdrop_and_a_person_covers_it() -> None:
    camera = Camera(SHOT, LOOKS[0], 160, 120, seed=1)
    nobody = camera.expose([], 0.0)
    assert nobody.shape == (120, 160, 3)
    assert nobody.dtype == np.uint8
    layer = person().render(0.0, 0.0, 0.0)
    change = np.abs(camera.expose([layer], 0.0).astype(int) - nobody).max(axis=2)
    assert change[layer[..., 3] == 0].mean() < 4
    assert change[layer[..., 3] == 255].mean() > 30


def test_light_changes_over_time() -> None:
    camera = Camera(SHOT, LOOKS[0], 160, 120, seed=1)
    means = [camera.expose([], t).mean() for t in (0.0, 1.5, 3.0, 4.5, 6.0)]
    assert 2 < max(means) - min(means) < 60


def test_a_cutaway_looks_different() -> None:
    room = Camera(SHOT, LOOKS[0], 160, 120, seed=1).expose([], 0.0)
    away = Shot(0, 50, 0, 0, 0, 1.0, 0.0, cutaway=1)
    view = Camera(away, LOOKS[0], 160, 120, seed=1).expose([], 0.0)
    assert np.abs(room.astype(int) - view).mean() > 30
