"""Frechet distance: exact where it is known, and streaming that changes nothing."""

import numpy as np
import pytest
import torch

from models.judges.frechet import GaussianStatistics, frechet_distance


def features(seed: int, count: int, dim: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, dim)) @ rng.standard_normal((dim, dim)) + 3


def statistics(array: np.ndarray) -> GaussianStatistics:
    result = GaussianStatistics(array.shape[1])
    result.update(array)
    return result


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(statistics(a), statistics(b))


def test_identical_sets_are_at_distance_zero() -> None:
    assert distance(features(0, 50), features(0, 50)) == pytest.approx(0, abs=1e-9)


def test_known_distance_of_diagonal_gaussians() -> None:
    a, b = GaussianStatistics(2), GaussianStatistics(2)
    corners = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    a.update(corners * [1, 2])
    b.update(corners * [3, 2] + [0, 5])
    # Means differ by 5, deviations by (3 - 1) times that of the corners in one direction.
    assert frechet_distance(a, b) == pytest.approx(25 + 4 * 4 / 3)


def test_singular_covariances_are_exact() -> None:
    rng = np.random.default_rng(0)
    few = rng.standard_normal((5, 64))
    shifted = few + 2.0
    assert distance(few, shifted) == pytest.approx(64 * 4, rel=1e-6)


def test_few_samples_close_together_are_exact() -> None:
    rng = np.random.default_rng(0)
    first = np.maximum(rng.normal(size=(48, 512)), 0)
    first[:, :20] *= 5
    second = first + 0.02 * rng.normal(size=first.shape)
    a, b = (each - each.mean(0) for each in (first, second))
    # The trace of the root of A B is the nuclear norm of a b^T / (n - 1).
    nuclear = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    spread = ((a**2).sum() + (b**2).sum() - 2 * nuclear) / 47
    exact = ((first.mean(0) - second.mean(0)) ** 2).sum() + spread
    assert distance(first, second) == pytest.approx(exact, rel=1e-8)


def test_symmetric() -> None:
    a, b = features(1, 40), features(2, 60)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-9)


def test_streaming_in_any_order_equals_one_pass() -> None:
    whole = features(3, 100) + 1e4
    parts = np.array_split(whole, 7)
    streamed = GaussianStatistics(8)
    for part in reversed(parts):
        streamed.update(torch.from_numpy(part))
    expected = statistics(whole)
    assert streamed.count == 100
    np.testing.assert_allclose(streamed.mean, whole.mean(0), rtol=1e-12)
    np.testing.assert_allclose(streamed.covariance, np.cov(whole.T), rtol=1e-6)
    np.testing.assert_allclose(streamed.covariance, expected.covariance, rtol=1e-6)


def test_merging_equals_one_pass() -> None:
    whole = features(4, 90)
    merged = GaussianStatistics(8)
    for part in np.array_split(whole, 3):
        merged.merge(statistics(part))
    merged.merge(GaussianStatistics(8))
    other = statistics(features(5, 70))
    assert frechet_distance(merged, other) == pytest.approx(
        frechet_distance(statistics(whole), other), rel=1e-9
    )


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((3, 5)), r"\(n, 8\)"),
        (np.full((3, 8), np.nan), "not finite"),
    ],
)
def test_bad_features(array: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GaussianStatistics(8).update(array)


def test_too_few_samples_and_unequal_dimensions() -> None:
    one = statistics(features(0, 1))
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(one, one)
    with pytest.raises(ValueError, match="8 and 4"):
        frechet_distance(statistics(features(0, 9)), statistics(features(0, 9, 4)))
    with pytest.raises(ValueError, match="do not merge"):
        statistics(features(0, 9)).merge(GaussianStatistics(4))
