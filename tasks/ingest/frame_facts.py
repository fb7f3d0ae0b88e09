"""What is seen and heard in each frame of a clip, and what is wrong with it whoever speaks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.errors import Reason
from datasets.faces.landmarks import face_size, head_pose, mouth_opening
from datasets.media import FPS, SAMPLES_PER_FRAME
from datasets.media.sound_choice import SILENCE
from tasks.sync.belonging import evidence_by_lag, log_likelihood_ratios
from tasks.sync.mouth_audio import mouth_spans
from tasks.sync.signals import MAX_LAG

PAUSE_FRAMES, EDGE = 38, 12
"""Sound that is missing for shorter is a pause; and how far it is felt in courses without trend."""
FROZEN_FRAMES, FROZEN = 15, 8e-4
"""A picture that stands still for shorter was repeated by an encoder; mean movement of landmarks
from one frame to the next, in face sizes, below which it stands still: a frozen picture measures
0.0002 to 0.0005, faces that keep still 0.001 and more."""
STILL_FRAMES, STILL = 38, 0.006
"""Frames, and standard deviation of the mouth's opening over a second, in face sizes: lips that are
held still measure 0.003 to 0.005, those of speakers 0.01 to 0.04."""
UPSIDE_DOWN_DEG = 100.0
"""Degrees of roll: who lies on one side has about 90, and is turned upright by the alignment."""
SPOKEN = 0.6
"""Share of a second in which somebody speaks while lips are still."""
SPEECH = 0.5
"""Probability from which a frame counts as speech, as silero-vad's authors suggest."""


@dataclass(frozen=True)
class FrameFacts:
    """Of one clip; all arrays have one value for each of its frames."""

    ratios: np.ndarray | None
    """float64 (31, t), see `tasks.sync.belonging.log_likelihood_ratios`; None if lips and sound are
    not compared."""
    by_lag: np.ndarray | None
    """float64 (31,), see `tasks.sync.belonging.evidence_by_lag`; None without `ratios`."""
    speech: np.ndarray
    """float32 (t,) probability of speech, 0 to 1; NaN if no model was asked."""
    sound: np.ndarray
    """bool (t,) whether anything is heard."""
    wrong: tuple[Reason, ...]
    """(t,) what is wrong whoever speaks: `NO_SOUND`, `UPSIDE_DOWN`, `FROZEN`, `STILL_LIPS` or
    `NONE`."""


def frame_facts(
    landmarks: np.ndarray, audio: np.ndarray, speech: np.ndarray | None, lips: bool
) -> FrameFacts:
    """Look at a clip frame by frame.

    Args:
        landmarks: (t, 478, 2), pixels.
        audio: float32 ((t + 30) * 640,) at 16 kHz, from 15 frames before the first one on.
        speech: (t,) probability of speech; None if no model is there, and then still lips are not
            looked for.
        lips: whether lips and sound are compared.
    """
    frames = len(landmarks)
    heard = np.square(audio.reshape(-1, SAMPLES_PER_FRAME)).mean(axis=1) >= SILENCE**2
    sound = heard[MAX_LAG : MAX_LAG + frames]
    wrong = np.full(frames, Reason.NONE, object)
    if speech is not None:
        # Loud need not be speech: music over a person who listens is no fault of the lips.
        spoken = sound & (speech >= SPEECH)
        wrong[is_still(mouth_opening(landmarks), spoken)] = Reason.STILL_LIPS
    wrong[is_frozen(landmarks)] = Reason.FROZEN
    wrong[np.abs(head_pose(landmarks)[:, 2]) > UPSIDE_DOWN_DEG] = Reason.UPSIDE_DOWN
    wrong[_long(~sound, PAUSE_FRAMES)] = Reason.NO_SOUND
    ratios = None
    if lips:
        seen = np.array([not each for each in wrong])
        ratios = log_likelihood_ratios(mouth_spans(landmarks), audio, seen, _within(heard))
        # What is cut out in any case says nothing of the seconds beside it.
        ratios[:, ~seen] = 0
    return FrameFacts(
        ratios,
        None if ratios is None else evidence_by_lag(ratios),
        np.full(frames, np.nan, np.float32) if speech is None else speech,
        sound,
        tuple(wrong),
    )


def is_frozen(landmarks: np.ndarray) -> np.ndarray:
    """bool (t,): frames of a picture that stands still; landmarks (t, 478, 2)."""
    points = np.asarray(landmarks, np.float64)
    moved = np.linalg.norm(np.diff(points, axis=0), axis=-1).mean(axis=-1) / face_size(points)[1:]
    # Where an encoder draws a still picture anew, landmarks jump once.
    calm = _median(moved, 5) < FROZEN
    frozen = np.zeros(len(points), bool)
    for first, stop in runs(calm):
        if stop - first >= FROZEN_FRAMES:
            frozen[first : stop + 1] = True
    return frozen


def is_still(opening: np.ndarray, spoken: np.ndarray) -> np.ndarray:
    """bool (t,): frames in which somebody speaks while the lips are still.

    Args:
        opening: (t,) of the mouth, in face sizes.
        spoken: bool (t,) whether anybody speaks.
    """
    still = np.zeros(len(opening), bool)
    if len(opening) < STILL_FRAMES:
        return still
    views = np.lib.stride_tricks.sliding_window_view(opening, int(FPS))
    # Every frame of a second in which the lips do not move.
    for at in np.flatnonzero(views.std(axis=1) < STILL):
        still[at : at + int(FPS)] = True
    for first, stop in runs(still):
        if stop - first < STILL_FRAMES or spoken[first:stop].mean() < SPOKEN:
            still[first:stop] = False
    return still


def runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """First and last (excluded) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(int)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def same(values: Sequence[object]) -> list[tuple[int, int]]:
    """First and last (excluded) of each run of equal values."""
    edges = [at for at in range(1, len(values)) if values[at] != values[at - 1]]
    return list(zip([0, *edges], [*edges, len(values)], strict=True)) if len(values) else []


def _within(heard: np.ndarray) -> np.ndarray:
    """Without the frames next to a pause, which the removal of slow changes mixes with it."""
    kept = heard.copy()
    for first, stop in runs(~heard):
        if stop - first >= PAUSE_FRAMES:
            kept[max(first - EDGE, 0) : stop + EDGE] = False
    return kept


def _long(marks: np.ndarray, least: int) -> np.ndarray:
    kept = np.zeros_like(marks)
    for first, stop in runs(marks):
        kept[first:stop] = stop - first >= least
    return kept


def _median(values: np.ndarray, width: int) -> np.ndarray:
    padded = np.pad(values, width // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1))
