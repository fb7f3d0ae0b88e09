"""Faces whose brightness says how far the mouth is open, so that a model can be written by hand."""

import numpy as np
import torch

from datasets.faces.landmarks import Face
from datasets.media import SAMPLES_PER_FRAME
from tasks.evaluate.clips import ChosenClip, OpenClip
from tasks.sync.networks import SyncCurve
from tests.support.fake_generator import Brightener
from tests.support.mouths import loudness as syllables
from tests.support.mouths import sound
from tests.support.small_dataset import landmarks

SIDE, DETECTED = 16, 320
DARK, LIGHT = 40.0, 200.0
"""Brightness of a closed mouth, and how much brighter an open one is."""
FULL = 0.08
"""Mean size of the samples of `sound` where a mouth is wide open."""


def paint(opening: np.ndarray) -> np.ndarray:
    """uint8 (t, SIDE, SIDE, 3) of mouths (t,) between 0 and 1."""
    levels = np.rint(DARK + LIGHT * np.clip(opening, 0, 1))
    return np.repeat(levels.astype(np.uint8), SIDE * SIDE * 3).reshape(-1, SIDE, SIDE, 3)


def opening_of(pictures: np.ndarray) -> np.ndarray:
    """What `paint` was given, (t,)."""
    return (np.asarray(pictures, np.float64).mean(axis=(1, 2, 3)) - DARK) / LIGHT


def loudness(wave: np.ndarray, frames: int) -> np.ndarray:
    """How open a mouth would say that, (frames,) between 0 and 1."""
    padded = np.zeros(frames * SAMPLES_PER_FRAME)
    padded[: len(wave)] = np.abs(wave[: len(padded)])
    return np.sqrt(np.minimum(padded.reshape(frames, -1).mean(1) / FULL, 1.0))


class PaintedDetector:
    """Reads the opening back from the picture's middle; sees no face in black."""

    def reset(self) -> None:
        return

    def detect(self, image: np.ndarray) -> list[Face]:
        level = float(image.mean())
        if level == 0:
            return []
        (points,) = landmarks(np.array([(level - DARK) / LIGHT]), DETECTED)
        return [Face((0.0, 0.0, DETECTED, DETECTED), points)]


class LoudnessJudge:
    """Distance of brightness and loudness at each shift: 1 less their correlation."""

    label, min_frames = "loudness", 31

    def curve(self, frames: np.ndarray, audio: np.ndarray) -> SyncCurve:
        mouth, heard = opening_of(frames), loudness(audio, len(frames))
        if mouth.std() < 1e-3 or heard.std() < 1e-3:
            return SyncCurve(np.full(31, 1.0))
        found = [np.corrcoef(np.roll(mouth, shift), heard)[0, 1] for shift in range(-15, 16)]
        return SyncCurve(1 - np.array(found))


class Painter(Brightener):
    """Opens the mouth with the speech, and lets something of the input through.

    Args:
        from_reference: share of the mouth that comes from the reference, 0 to 1.
        through_mask: share that comes from the face that should be repainted.
        in_pauses: whether the face comes through only where nothing is heard.
        reference: how references are chosen.
    """

    def __init__(
        self,
        from_reference: float = 0.0,
        through_mask: float = 0.0,
        in_pauses: bool = False,
        reference: str = "frame",
    ) -> None:
        super().__init__(SIDE, reference)
        self.from_reference, self.through_mask = from_reference, through_mask
        self.in_pauses = in_pauses

    def _tokens(self, wave: np.ndarray, count: int) -> torch.Tensor:
        return torch.as_tensor(loudness(wave, count), dtype=torch.float32).view(count, 1, 1)

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        heard = tokens.flatten().numpy()
        own = 1 - self.from_reference - self.through_mask
        mouth = own * heard + self.from_reference * opening_of(references)
        mouth += self.through_mask * opening_of(faces)
        if self.in_pauses:
            mouth = heard if heard.any() else opening_of(faces)
        return paint(mouth).astype(np.float32)


def painted_clip(number: int, frames: int = 125, silent: int = 50) -> OpenClip:
    """A talking clip, driven by the speech of another one."""
    own, foreign = (syllables(frames, 100 * number + which) for which in range(2))
    chosen = ChosenClip(f"clip{number}", f"speaker{number}", frames, "other", frames, silent)
    return OpenClip(
        chosen,
        paint(own),
        landmarks(own, SIDE),
        sound(own, number),
        sound(foreign, number + 50),
        0.1 * foreign,
    )
