"""Frechet distance between two sets of features (FID, arXiv 1706.08500), in float64.

Statistics are streamed: no feature matrix is kept. The trace of the root of the product
of the covariances is computed from eigenvalues of symmetric matrices. If covariances are
singular (fewer samples than dimensions), only as many eigenvalues count as there can be, since the
root would amplify the rounding errors of the others.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ENOUGH = 10
"""Samples per dimension from which the bias is small."""
Features = NDArray[Any] | torch.Tensor


class GaussianStatistics:
    """Count, mean and covariance of feature vectors that come in batches.

    Merging the statistics of parts equals one pass over all; order changes rounding only.

    Args:
        dim: length of a feature vector.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.count = 0
        self.mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))

    def update(self, features: Features) -> None:
        """Add a batch of (n, dim).

        Raises:
            ValueError: another shape, or a value that is not finite.
        """
        if isinstance(features, torch.Tensor):
            features = features.detach().cpu().to(torch.float64).numpy()
        batch = np.asarray(features, dtype=np.float64)
        if batch.ndim != 2 or batch.shape[1] != self.dim:
            raise ValueError(f"features must be (n, {self.dim}), got {batch.shape}")
        if not np.isfinite(batch).all():
            raise ValueError("features hold values that are not finite")
        if len(batch) == 0:
            return
        mean = batch.mean(axis=0)
        centred = batch - mean
        self._add(len(batch), mean, centred.T @ centred)

    def merge(self, other: "GaussianStatistics") -> None:
        """Add the samples of another one.

        Raises:
            ValueError: it has another dimension.
        """
        if other.dim != self.dim:
            raise ValueError(f"statistics of {other.dim} and {self.dim} dimensions do not merge")
        if other.count:
            self._add(other.count, other.mean, other._scatter)

    def _add(self, count: int, mean: NDArray[Any], scatter: NDArray[Any]) -> None:
        """Chan's update, which is also exact for means far from zero."""
        total = self.count + count
        shift = mean - self.mean
        between = np.outer(shift, shift) * (self.count * count / total)
        self._scatter = self._scatter + scatter + between
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def second_moment(self) -> NDArray[Any]:
        """(dim, dim), the mean of x x^T; of at least one sample."""
        return self._scatter / self.count + np.outer(self.mean, self.mean)

    @property
    def covariance(self) -> NDArray[Any]:
        """(dim, dim), normalised by n - 1.

        Raises:
            ValueError: fewer than two samples.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self._scatter / (self.count - 1)


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)), not negative.

    It is biased upwards, more so with fewer samples per dimension: compare only
    numbers of equal n.

    Raises:
        ValueError: the dimensions differ or there are fewer than two samples.
    """
    if a.dim != b.dim:
        raise ValueError(f"statistics of {a.dim} and {b.dim} dimensions cannot be compared")
    first, second = a.covariance, b.covariance
    values, vectors = np.linalg.eigh(first)
    ranks = [min(each.dim, each.count - 1) for each in (a, b)]
    # (dim, rank) with first = root @ root.T; the product's eigenvalues are those of A B.
    root = (vectors * np.sqrt(values.clip(0)))[:, -ranks[0] :]
    product = np.linalg.eigvalsh(root.T @ second @ root)
    trace_of_root = np.sqrt(product[-min(ranks) :].clip(0)).sum()
    shift = a.mean - b.mean
    distance = shift @ shift + np.trace(first) + np.trace(second) - 2 * trace_of_root
    return float(max(distance, 0.0))


def few_samples(count: int, dim: int) -> str:
    """The note on a distance that is too large because of few samples.

    With fewer than ten samples per dimension the estimate of the covariance adds more than
    the difference between models (50,000 images for 2048 dimensions are usual).
    """
    if count >= ENOUGH * dim:
        return ""
    return f", biased upwards by only {count} samples for {dim} features"
