"""What FaceMesh sees of the lips in a clip's videos: whether they follow the speech, come from the
input, and close at p, b and m."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datasets.faces.landmarks import mouth_opening
from tasks.evaluate.clips import Kind, OpenClip
from tasks.evaluate.closure import Closure, measure_closure
from tasks.evaluate.leakage import (
    MIN_FACES,
    Mouth,
    correlation,
    moving_share,
    no_face,
    opening_in_silence,
)
from tasks.evaluate.metrics import landmark_distance
from tasks.evaluate.row import Row, too_short
from tasks.registry.metric import NO_SILENCE

MIN_SPEECH = 46
"""Frames of speech below which its course means nothing: the search alone spans 31."""
FOLLOWS_OFFSET, FOLLOWS_Z = 2.0, 3.0
"""Lips follow the speech if the offset is at most so many frames and stands out so much. Videos
whose lips have nothing to do with the speech reach both in up to 3 % of clips
(`python -m benchmarks.gate`)."""

Faces = Mapping[str, tuple[np.ndarray, float]]
"""Kind of video (also `real`) -> landmarks (t, 478, 2) and the share of frames with a face."""


def note_lips(row: Row, faces: Faces, clip: OpenClip, scorer: Any) -> None:
    """Whether the lips follow the speech, and lie where the real ones do.

    Args:
        row: takes the numbers.
        faces: of the real video, the reconstruction and the cross video.
        clip: the clip.
        scorer: measures the offset, see `tasks.sync.mouth_audio`.
    """
    truth, seen_real = faces["real"]
    row.note("faces_found", min(faces["reconstruction"][1], faces["cross"][1]))
    for name, kind in (("lmd", "reconstruction"), ("lmd_cross", "cross")):
        landmarks, seen = faces[kind]
        if min(seen_real, seen) >= MIN_FACES:
            row.note(name, landmark_distance(truth[: len(landmarks)], landmarks))
        else:
            row.lack(name, no_face(min(seen_real, seen)))
    for kind in ("real", "reconstruction", "cross"):
        landmarks, seen = faces[kind]
        if seen >= MIN_FACES and len(landmarks) >= MIN_SPEECH:
            score = scorer.measure(landmarks, clip.driving if kind == "cross" else clip.speech)
            row.note(f"mouth_offset_{kind}", score.offset_frames)
            row.note(f"mouth_z_{kind}", score.confidence)
            near = abs(score.offset_frames) <= FOLLOWS_OFFSET
            row.note(f"follows_{kind}", float(near and score.confidence >= FOLLOWS_Z))
            continue
        reason = no_face(seen)
        if len(landmarks) < MIN_SPEECH:
            reason = too_short(len(landmarks), "the course of the mouth's opening")
            reason += f" needs {MIN_SPEECH} frames or more"
        for number in ("mouth_offset", "mouth_z", "follows"):
            row.lack(f"{number}_{kind}", reason)


def mouths_of(faces: Faces) -> dict[str, Mouth]:
    """The courses of the mouths."""
    return {kind: Mouth(mouth_opening(at), seen) for kind, (at, seen) in faces.items()}


def note_leaks(row: Row, clip: OpenClip, mouths: Mapping[str, Mouth]) -> None:
    """How much of the input's own mouth is in the generated ones."""
    real, cross = mouths["real"], mouths["cross"]
    row.note("leak_correlation", *correlation(cross, real))
    driver = Mouth(clip.driver_opening, 1.0)
    row.note("leak_correlation_real", *correlation(driver, real))
    if "silence" in mouths:
        silent = mouths["silence"]
        row.note("leak_opening", *opening_in_silence(silent, mouths["reconstruction"]))
        row.note("leak_moving", *moving_share(silent))
        return
    for name in ("leak_opening", "leak_moving"):
        row.lack(name, NO_SILENCE)


def note_closures(row: Row, clip: OpenClip, mouths: Mapping[str, Mouth]) -> None:
    """Whether lips close at p, b and m."""
    heard: dict[str, Kind] = {
        "real": "reconstruction",
        "reconstruction": "reconstruction",
        "cross": "cross",
    }
    for name, kind in heard.items():
        mouth = mouths[name]
        if mouth.seen < MIN_FACES:
            found = Closure(reason=no_face(mouth.seen))
        else:
            found = measure_closure(mouth.opening, clip.said(kind))
        row.note(f"closure_gap_{name}", found.gap, found.reason)
        row.note(f"closed_{name}", found.closed, found.reason)
