"""Whether a lip-synced video follows its speech, judged only by the mouth's landmarks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.faces.landmarks import FaceMeshDetector, mouth_opening
from datasets.media import SAMPLES_PER_FRAME, read_audio, read_frames
from tasks.sync.mouth_audio import MouthAudioScorer


@dataclass(frozen=True)
class LipSyncScore:
    """How the output's mouth matches the driving speech, and the input's own sound."""

    offset_frames: float
    """Shift at which it fits the driving speech best, frames at 25 fps; positive: audio late."""
    z: float
    """How clearly."""
    input_offset_z: float
    """How clearly it would fit the input's own sound: small if the mouth is new."""
    output_opening: np.ndarray
    """(t,) opening of the output's mouth at 25 fps."""
    input_opening: np.ndarray
    """(t,) opening of the input's mouth at 25 fps."""


def read_landmarks(path: Path) -> np.ndarray:
    """Landmarks of the largest face at 25 fps, float32 (t, 478, 2), interpolated where no face
    is found.

    Raises:
        ValueError: no face is found at all.
    """
    found: list[np.ndarray | None] = []
    with FaceMeshDetector(max_faces=2) as detector:
        for frame in read_frames(path):
            faces = detector.detect(frame.rgb)
            found.append(faces[0].landmarks if faces else None)
    seen = np.array([each is not None for each in found])
    if not seen.any():
        raise ValueError(f"no face was found in {path}")
    known = np.stack([each for each in found if each is not None])
    index = np.interp(np.arange(len(found)), np.flatnonzero(seen), np.arange(len(known)))
    low, share = np.floor(index).astype(int), index % 1
    high = np.minimum(low + 1, len(known) - 1)
    weight = share[:, None, None].astype(np.float32)
    return (1 - weight) * known[low] + weight * known[high]


def score_lip_sync(output: Path, driving: Path, source: Path) -> LipSyncScore:
    """Measure a lip-synced video.

    Args:
        output: the lip-synced video.
        driving: the speech it was given.
        source: the video it was made from.
    """
    scorer = MouthAudioScorer()
    new, old = read_landmarks(output), read_landmarks(source)
    speech, own = read_audio(driving), read_audio(source)
    follows = scorer.measure(new, _fit(speech, len(new)))
    # Past the input's length its video runs backwards, but its sound does not.
    count = min(len(new), len(old))
    copies = scorer.measure(new[:count], _fit(own, count))
    return LipSyncScore(
        offset_frames=float(follows.offset_frames),
        z=float(follows.confidence),
        input_offset_z=float(copies.confidence),
        output_opening=mouth_opening(new),
        input_opening=mouth_opening(old),
    )


def _fit(audio: np.ndarray, frames: int) -> np.ndarray:
    """The audio cut or padded to a number of frames."""
    wanted = frames * SAMPLES_PER_FRAME
    return np.pad(audio[:wanted], (0, max(0, wanted - len(audio))))
