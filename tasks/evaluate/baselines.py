"""Models that deserve no credit, measured as every model is.

Each makes its videos from the same clips without hearing the speech. A number that one of them
reaches says nothing about lip-sync, and a gate that lets one of them pass is open.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from datasets.faces.landmarks import head_pose, mouth_opening
from datasets.faces.points import SHAPE
from models.latentsync.mask import face_mask
from tasks.evaluate.clips import Kind, OpenClip
from tasks.lipsync.references import make_references

Baseline = Literal["input", "still", "grey", "moment", "shuffled", "reference"]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)
MEANING: Mapping[Baseline, str] = {
    "input": "the input itself",
    "still": "its first frame, repeated",
    "grey": "the input with a grey mask",
    "moment": "the input, half the clip away",
    "shuffled": "the model's own videos, half their length late",
    "reference": "the reference picture, copied",
}
GREY = 128
WINDOW = 16
"""Frames that share a reference, as when a video is generated."""


def baseline_video(
    baseline: Baseline, clip: OpenClip, kind: Kind, generated: np.ndarray, reference: str
) -> np.ndarray:
    """What a trivial model would have made, uint8 (t, R, R, 3).

    Args:
        baseline: which model.
        clip: the clip.
        kind: which of its videos.
        generated: the judged model's video of this kind.
        reference: how references are chosen, see `tasks.lipsync.references`.
    """
    count = clip.length(kind)
    frames = clip.frames[:count]
    if baseline == "input":
        return frames
    if baseline == "still":
        return np.repeat(frames[:1], count, axis=0)
    if baseline == "grey":
        keep = face_mask(frames.shape[1], "cpu")[0, 0].numpy()[..., None]
        return np.rint(frames * keep + GREY * (1 - keep)).astype(np.uint8)
    if baseline == "moment":
        return np.roll(clip.frames, len(clip.frames) // 2, axis=0)[:count]
    if baseline == "shuffled":
        return np.roll(generated, len(generated) // 2, axis=0)
    landmarks = clip.landmarks[:count]
    references = make_references(
        reference,
        head_pose(landmarks),
        mouth_opening(landmarks),
        lambda positions: frames[list(positions)],
        landmarks[:, SHAPE],
    )
    # With "frame" each frame is its own reference.
    if references is None:
        return frames
    windows = np.array_split(np.arange(count), math.ceil(count / WINDOW))
    return np.concatenate([references(window) for window in windows])
