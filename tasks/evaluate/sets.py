"""Distances between sets of pictures, or of windows of video, by their features."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from models.judges.extractors import FeatureExtractor
from models.judges.frechet import GaussianStatistics, few_samples, frechet_distance
from tasks.evaluate.measurement import SetLabel
from tasks.registry.intervals import with_interval
from tasks.registry.metric import Metric, metric

WINDOW = 16
"""Frames of a window, which FVD looks at."""
SMALL_FEATURES = 512
"""Up to so many dimensions a Frechet distance takes milliseconds."""
PUBLISHED_FIRST = 20
"""First frame of the only window that the published evaluation takes of a clip (20 to 35)."""

Distance = Callable[[GaussianStatistics, GaussianStatistics], float]


def features(extractor: FeatureExtractor, pictures: np.ndarray) -> np.ndarray:
    """float64 (n, dim) of pictures (n, h, w, 3), or of windows (n, t, h, w, 3)."""
    found = extractor(pictures)
    if isinstance(found, torch.Tensor):
        found = found.detach().cpu().numpy()
    return np.asarray(found, np.float64)


def spread_frames(count: int, wanted: int) -> np.ndarray:
    """Positions of at most `wanted` of `count` frames, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(int))


def windows(count: int, wanted: int) -> np.ndarray:
    """Positions (n, WINDOW) of at most `wanted` windows of `count` frames, one after another."""
    starts = np.arange(0, count - WINDOW + 1, WINDOW)[:wanted]
    return np.asarray(starts[:, None] + np.arange(WINDOW))


def published_window(count: int) -> np.ndarray:
    """The window of the published evaluation, (1, WINDOW); (0, WINDOW) for a shorter clip."""
    starts = np.arange(PUBLISHED_FIRST, PUBLISHED_FIRST + int(count >= PUBLISHED_FIRST + WINDOW))
    return np.asarray(starts[:, None] + np.arange(WINDOW))


class SetDistance:
    """The distance of real and generated pictures, clip by clip.

    Args:
        about: who describes them.
        real: float64 (n, dim) of each clip's real pictures.
        fake: the same of the generated ones.
    """

    def __init__(
        self, about: SetLabel, real: Sequence[np.ndarray], fake: Sequence[np.ndarray]
    ) -> None:
        self.about, self.real, self.fake = about, real, fake

    def distance(self, clips: np.ndarray, measure: Distance = frechet_distance) -> float:
        """The distance over clips given by their indices, which may repeat."""
        if sum(len(self.fake[each]) for each in clips) < 2:
            return math.nan
        sides = []
        for each_side in (self.real, self.fake):
            side = GaussianStatistics(self.about.dim)
            for each in clips:
                side.update(each_side[each])
            sides.append(side)
        return measure(*sides)

    def result(
        self,
        name: str,
        speakers: list[str],
        note: str,
        things: str,
        measure: Distance = frechet_distance,
    ) -> Metric:
        """The distance; `things` names what was compared, in the plural."""
        count = sum(len(each) for each in self.fake)
        label = self.about.label + note
        if measure is frechet_distance:
            label += few_samples(count, self.about.dim)
        if count < 2:
            reason = f"it needs 2 {things} or more on either side, these clips have {count}"
            return metric(math.nan, label, 0, reason)

        def statistic(clips: np.ndarray) -> float:
            return self.distance(clips, measure)

        found = metric(statistic(np.arange(len(self.fake))), label, count)
        small = self.about.dim <= SMALL_FEATURES
        return with_interval(found, name, speakers, statistic, 100 if small else 20)
