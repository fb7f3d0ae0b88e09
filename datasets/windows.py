"""Which frames of which clip: windows for training, drawn by position and not by history."""

from dataclasses import dataclass

import numpy as np

from datasets.clips import ClipStore
from datasets.errors import UserError


def rng_for(seed: int, step: int, index: int = 0) -> np.random.Generator:
    """Random numbers of one sample of one step.

    A run that is resumed at a step draws what an undisturbed run would have drawn.
    """
    return np.random.default_rng([seed, step, index])


@dataclass(frozen=True)
class Window:
    """A stretch of frames to generate, and one to show who it is."""

    clip_id: str
    start: int
    """First frame of the target."""
    reference_start: int
    """First frame of the reference."""


class WindowSampler:
    """Draws target and reference windows, and pairs for a sync network.

    Args:
        store: the clips.
        num_frames: length of a window.
        min_distance: least distance between the starts of two windows of a clip, frames.

    Raises:
        UserError: no clip has room for two windows.
    """

    def __init__(self, store: ClipStore, num_frames: int = 16, min_distance: int = 16) -> None:
        self.num_frames = num_frames
        self.min_distance = min_distance
        self.clips = [clip for clip in store.clips if clip.num_frames >= num_frames + min_distance]
        if not self.clips:
            longest = max(clip.num_frames for clip in store.clips)
            raise UserError(
                f"no clip is long enough: two windows need {num_frames + min_distance} frames, "
                f"the longest clip has {longest}"
            )

    def window(self, rng: np.random.Generator) -> Window:
        """A target window and a reference window of one clip."""
        clip = self.clips[int(rng.integers(len(self.clips)))]
        start, other = two_starts(rng, clip.num_frames, self.num_frames, self.min_distance)
        return Window(clip.clip_id, start, other)

    def sync_pair(self, rng: np.random.Generator) -> tuple[str, int, int, bool]:
        """(clip id, first frame, first frame of the audio, whether they belong together)."""
        window = self.window(rng)
        positive = bool(rng.integers(2))
        audio = window.start if positive else window.reference_start
        return window.clip_id, window.start, audio, positive


def two_starts(
    rng: np.random.Generator, num_frames: int, length: int, distance: int
) -> tuple[int, int]:
    """Starts of two windows of `length` frames in a clip, at least `distance` apart.

    The first is uniform over those that leave room for a second, the second uniform over
    that room.

    Raises:
        ValueError: the clip has fewer than `length + distance` frames.
    """
    if num_frames < length + distance:
        raise ValueError(
            f"{num_frames} frames have no room for two windows of {length} that are "
            f"{distance} apart"
        )
    starts = np.arange(num_frames - length + 1)
    allowed = [start for start in starts if start >= distance or start + distance <= starts[-1]]
    first = int(rng.choice(allowed))
    second = int(rng.choice(starts[np.abs(starts - first) >= distance]))
    return first, second
