"""Distances of videos that see the order of their frames."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.files.errors import ModelFileError
from models.judges.extractors import image_extractor, video_extractor
from models.judges.frechet import GaussianStatistics, frechet_distance
from models.judges.motion import motion_extractor, polynomial_mmd

CPU = torch.device("cpu")


def statistics(features: np.ndarray) -> GaussianStatistics:
    found = GaussianStatistics(features.shape[1])
    found.update(features)
    return found


def by_pairs(x: np.ndarray, y: np.ndarray) -> float:
    """JEDi's number from its definition: means of the kernel over all pairs."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a @ b.T / a.shape[1]) ** 2).mean())

    return 100 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))


def test_the_kernel_distance_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 1, (40, 6)), rng.normal(1.2, 1.5, (25, 6))
    assert polynomial_mmd(statistics(x), statistics(y)) == pytest.approx(by_pairs(x, y))
    assert polynomial_mmd(statistics(x), statistics(x)) == 0
    # A known value: one sample of ones against one of zeros, (3 / 3)^2.
    one, none = statistics(np.ones((1, 3))), statistics(np.zeros((1, 3)))
    assert polynomial_mmd(one, none) == pytest.approx(100)


def test_parts_that_are_merged_equal_one_pass() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (50, 4)), rng.normal(0.5, 1, (30, 4))
    parts = statistics(x[:7])
    for begin, end in ((7, 20), (20, 50)):
        parts.merge(statistics(x[begin:end]))
    for measure in (polynomial_mmd, frechet_distance):
        whole = measure(statistics(x), statistics(y))
        assert measure(parts, statistics(y)) == pytest.approx(whole, rel=1e-9)


def test_sets_that_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        polynomial_mmd(statistics(np.ones((2, 3))), statistics(np.ones((2, 4))))
    with pytest.raises(ValueError, match="0 and 2 samples"):
        polynomial_mmd(GaussianStatistics(3), statistics(np.ones((2, 3))))


def videos(count: int, seed: int) -> np.ndarray:
    """uint8 (count, 16, 64, 64, 3): a mouth that opens and closes on a face of its own colour."""
    rng = np.random.default_rng(seed)
    found = np.empty((count, 16, 64, 64, 3), np.uint8)
    for number in range(count):
        skin = rng.integers(120, 220, 3)
        phase, speed = rng.uniform(0, 6), rng.uniform(0.5, 0.8)
        for frame in range(16):
            picture = np.full((64, 64, 3), skin, np.uint8)
            height = round(2 + 9 * (0.5 + 0.5 * np.sin(phase + speed * frame)))
            cv2.ellipse(picture, (32, 42), (14, height), 0, 0, 360, (60, 10, 10), -1)
            found[number, frame] = picture
    return found


def test_a_broken_order_of_frames_is_seen_far_more_than_by_frames() -> None:
    real, rng = videos(48, 0), np.random.default_rng(2)
    # A model that is nearly perfect, and the same with its frames in another order.
    noise = rng.normal(0, 4, real.shape)
    other = np.clip(np.rint(real + noise), 0, 255).astype(np.uint8)
    broken = np.stack([each[rng.permutation(16)] for each in other])
    motion, frames, video = (
        motion_extractor(None, CPU),
        image_extractor(None),
        video_extractor(None),
    )

    def rise(measure: object, extract: object, flat: bool) -> float:
        def side(given: np.ndarray) -> GaussianStatistics:
            given = given.reshape(-1, *given.shape[2:]) if flat else given
            return statistics(extract(given))  # type: ignore[operator]

        truth = side(real)
        before, after = (measure(truth, side(each)) for each in (other, broken))  # type: ignore[operator]
        return float(after / max(before, 1e-12))

    by_frames = rise(frechet_distance, frames, True)
    assert by_frames == pytest.approx(1, abs=1e-6)
    cd_fvd, kernel = (rise(each, motion, False) for each in (frechet_distance, polynomial_mmd))
    # About 97 and 312 times, the convolutions that stand in for I3D 19 times.
    assert cd_fvd > 3 * rise(frechet_distance, video, False)
    assert cd_fvd > 40
    assert kernel > 40


def test_the_stand_in_is_the_same_everywhere_and_leaves_other_draws_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = motion_extractor(None, CPU), motion_extractor(None, CPU)
    assert torch.equal(torch.rand(3), expected)
    given = videos(2, 3)
    assert (first(given) == second(given)).all()
    assert first(given).shape == (2, first.dim)
    assert "not the official weights" in first.label
    with pytest.raises(ValueError, match="takes uint8 RGB with 5 axes"):
        first(given[0])


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.pth"
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    with pytest.raises(ModelFileError):
        motion_extractor(path, CPU)
