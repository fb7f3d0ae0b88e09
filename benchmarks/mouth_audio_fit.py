"""Fit the weights of the scorer mouth-audio, and show how they perform on speakers left out.

    python -m benchmarks.mouth_audio_fit FOLDER                  print
    `tasks.sync.mouth_audio_weights`
    python -m benchmarks.mouth_audio_fit FOLDER --leave-one-out  the figures of benchmarks.offsets,
                                                                 each file by weights fitted on
                                                                 all others

FOLDER holds the talking heads of `KNOWN_OFFSETS`; other files are not used in the fit, but
are measured. A regularised canonical correlation of mouth and sound, each file aligned first and
weighted by the root of its length.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.offsets import Footage, measure, pieces, read_folder, report
from datasets.media import FPS
from tasks.sync.mouth_audio import VELOCITY_SHARE, MouthAudioScorer, band_signals, mouth_signals
from tasks.sync.mouth_audio_weights import MouthAudioWeights
from tasks.sync.signals import ClipSignals, OffsetScore

KNOWN_OFFSETS = {
    "grid_bbaf2n.mpg": 0,
    "grid_brbk7n.mpg": 0,
    "grid_lbax4n.mpg": 0,
    "grid_lbbc2a.mpg": 0,
    "grid_lrwp9a.mpg": 0,
    "grid_lwbsza.mpg": 0,
    "grid_pwij3p.mpg": 0,
    "hdtf_WDA_AlexandriaOcasioCortez_000.mp4": 3,
    "latentsync_demo3_30fps.mp4": 2,
    "retalk_1.mp4": -2,
    "retalk_2.mp4": 0,
    "retalk_5.mp4": 0,
    "syncnet_example.avi": -3,
}
"""Frames by which the audio is late."""
COURSES = 2
RIDGE = 0.3
"""Added to the covariances, as a share of their mean diagonal."""
LONGEST = 250


def fit(footage: Sequence[Footage]) -> MouthAudioWeights:
    """Weights from the files whose offset is known."""
    known = [each for each in footage if each.name in KNOWN_OFFSETS]
    prepared = [pair for each in known for pair in _aligned(each)]
    # Mouths differ in the sizes of their distances, not in their meaning: one scale for all.
    scale = np.sqrt(np.mean([mouth.var(axis=0) for _, mouth, _ in prepared], axis=0))
    own, other, cross = 0.0, 0.0, 0.0
    for weight, mouth, sound in prepared:
        for share, speed in ((1.0, False), (VELOCITY_SHARE, True)):
            left, right = (_unit(each, speed) for each in (mouth / scale, sound))
            own = own + share * weight * left.T @ left
            other = other + share * weight * right.T @ right
            cross = cross + share * weight * left.T @ right
    lower, upper = np.linalg.cholesky(_ridged(own)), np.linalg.cholesky(_ridged(other))
    whitened = np.linalg.solve(lower, np.asarray(cross)) @ np.linalg.inv(upper).T
    left, strengths, right = np.linalg.svd(whitened)
    mouth_weights = np.linalg.solve(lower.T, left[:, :COURSES]) / scale[:, None]
    sound_weights = np.linalg.solve(upper.T, right[:COURSES].T)
    # Only their proportions matter, and that both have the same sign.
    largest = np.abs(mouth_weights).argmax(axis=0)
    signs = np.sign(mouth_weights[largest, np.arange(COURSES)])
    mouth_weights *= signs / np.abs(mouth_weights).max(axis=0)
    sound_weights *= signs / np.abs(sound_weights).max(axis=0)
    return MouthAudioWeights(
        mouth_weights.round(2), sound_weights.round(2), strengths[:COURSES].round(2)
    )


@cache
def _aligned(each: Footage) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """(weight, mouth, sound) of a file's pieces, its known offset undone."""
    weight = 1 / np.sqrt(len(each.landmarks))
    result = []
    for start, frames in pieces(len(each.landmarks), LONGEST):
        clip = each.signals(start, frames, -KNOWN_OFFSETS[each.name])
        result.append((weight, mouth_signals(clip.landmarks), band_signals(clip.audio, frames)))
    return result


def _unit(signals: np.ndarray, speed: bool) -> np.ndarray:
    if not speed:
        return signals - signals.mean(axis=0)
    speeds = np.gradient(signals, axis=0)
    # On the scale of the signals themselves.
    return speeds * signals.std(axis=0) / np.maximum(speeds.std(axis=0), 1e-9)


def _ridged(covariance: np.ndarray | float) -> np.ndarray:
    matrix = np.asarray(covariance)
    return matrix + RIDGE * np.trace(matrix) / len(matrix) * np.eye(len(matrix))


class LeftOut:
    """Scores every clip with weights fitted on all other files."""

    name = MouthAudioScorer.name
    needs_frames = False
    min_confidence = MouthAudioScorer.min_confidence

    def __init__(self, footage: Sequence[Footage]) -> None:
        self._scorers = {
            id(each.landmarks): MouthAudioScorer(fit([f for f in footage if f is not each]))
            for each in footage
        }

    def score(self, clips: Sequence[ClipSignals]) -> list[OffsetScore]:
        """By which file the landmarks are of."""
        return [
            self._scorers[id(clip.landmarks.base)].measure(clip.landmarks, clip.audio)
            for clip in clips
        ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mouth_audio_fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--leave-one-out", action="store_true")
    options = parser.parse_args(argv)
    footage, _ = read_folder(options.folder)
    if not options.leave_one_out:
        fitted = fit(footage)
        for name, values in vars(fitted).items():
            print(f"{name} = {values.tolist()}")
        return 0
    scorer = LeftOut(footage)
    for seconds in (10, 5):
        print(f"pieces of at most {seconds} s, each file by weights of the others")
        report(*measure(scorer, footage, round(seconds * FPS)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
