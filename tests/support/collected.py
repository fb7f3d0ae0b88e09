"""Measuring and summing up in one, for tests of what an evaluation's numbers are."""

from typing import Any, cast

import numpy as np
import torch

from tasks.evaluate.clips import OpenClip
from tasks.evaluate.measurement import Measurement
from tasks.evaluate.scores import Scores
from tasks.evaluate.summary import Summary
from tasks.registry.metric import Metric


class Mean(torch.nn.Module):
    """Features, and a difference of pictures, that are brightness."""

    label, dim = "mean", 1

    def __init__(self) -> None:
        super().__init__()
        self.given: list[np.ndarray] = []

    def forward(self, *pictures: Any) -> Any:
        if len(pictures) == 2:
            return (pictures[0] - pictures[1]).abs().mean(dim=(1, 2, 3))
        self.given.append(pictures[0])
        values = np.asarray(pictures[0], np.float64)
        return values.reshape(len(values), -1).mean(1, keepdims=True)


def bare_scores(judge: Any, classifier: Any, scorer: Any, detector: Any, frames: int) -> Scores:
    """Scores by given judges; sets compare brightness, a number of frames and 2 windows of a
    clip."""
    made = Scores.__new__(Scores)
    made.judge, made.classifier = judge, classifier
    made.scorer, made.detector = scorer, detector
    made.extractors = {name: cast(Any, Mean()) for name in ("fid", "fvd", "motion")}
    made.frames, made.windows = frames, 2
    made.lpips, made.device = cast(Any, Mean()), torch.device("cpu")
    made.published = made.identity = None
    made.truth = []
    return made


class Collected:
    """The numbers of clips that are measured one after another."""

    def __init__(self, scores: Scores, note: str = "", hear_leaks: bool = True) -> None:
        self.scores, self.hear_leaks = scores, hear_leaks
        self.summary = Summary(scores.labels, note)

    def add(
        self,
        clip: OpenClip,
        reconstruction: np.ndarray,
        cross: np.ndarray,
        silence: np.ndarray | None = None,
    ) -> Measurement:
        found = self.scores.measure(clip, reconstruction, cross, silence, self.hear_leaks)
        self.summary.add(clip.chosen.speaker, found)
        return found

    @property
    def rows(self) -> list[dict[str, float]]:
        return [dict(each.values) for each in self.summary.found]

    @property
    def reasons(self) -> dict[str, str]:
        return self.summary.reasons

    def metrics(self) -> dict[str, Metric]:
        return self.summary.metrics()
