"""Windows for a sync network: lower halves of a face, or all of it, and sound from there or
elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from datasets.media import SAMPLES_PER_FRAME
from datasets.shards.clip_content import ClipContent
from models.audio.mel import FPS, MEL_RATE, mel_spectrogram, window_columns
from tasks.recipes.config import SyncNetConfig
from tasks.train.augment import Colours, change_sound, draw_colours, draw_shift, shift_frames
from tasks.train.windows import two_starts

GRID = 5
"""Every fifth video frame begins with a mel column, so slices that start there have the
columns of the whole clip."""
GRID_COLUMNS = GRID * MEL_RATE // FPS
EDGE = 3
"""Mel columns at a slice's ends that would hear beyond it."""
SEVERAL = 4
"""Windows for which it is quicker to decode all of a clip's sound at once."""


@dataclass(frozen=True)
class SyncWindow:
    """A window, and sound that does or does not belong to it."""

    frames: NDArray[np.uint8]
    """(f, h/2, w, 3), or (f, h, w, 3) for a network that sees latents."""
    colours: Colours
    mel: NDArray[np.float32]
    """(80, 52)."""
    label: float
    """1 if in sync, else 0."""


@dataclass(frozen=True)
class _Drawn:
    index: NDArray[np.int64]
    """(f,) numbers of the frames in the clip."""
    columns: NDArray[np.float64]
    """(n,) positions, 52 for 16 frames, of the mel columns in the clip's spectrogram."""
    shift: tuple[int, int]
    colours: Colours
    label: float


def sync_reach(config: SyncNetConfig) -> int:
    """Frames that a clip must have."""
    reach = round(config.num_frames * (1 + config.time_warp))
    return reach + round(config.min_distance * (1 + config.time_warp))


def sync_windows(
    content: ClipContent,
    config: SyncNetConfig,
    rng: np.random.Generator,
    in_sync: Sequence[bool],
    keep: Sequence[int] | None = None,
) -> list[SyncWindow]:
    """Windows of one clip, which is decoded once.

    Args:
        content: the clip.
        config: sizes, and how much is changed.
        rng: source of all draws.
        in_sync: for each window whether its sound is its own.
        keep: which of them are wanted; None: all. What is drawn is the same.
    """
    mel = _Mel(content, config, rng, len(in_sync))
    drawn = [_draw(rng, content, config, each) for each in in_sync]
    drawn = drawn if keep is None else [drawn[each] for each in keep]
    lower = config.sees == "pixels"
    # Shifted faces show rows of the upper half, too.
    halves = lower and config.shift <= 0
    frames = content.frames(np.concatenate([each.index for each in drawn]), lower=halves)
    windows = []
    for each, shown in zip(drawn, np.split(frames, len(drawn)), strict=True):
        if not halves:
            shown = shift_frames(shown, each.shift)[:, lower * content.side // 2 :]
        windows.append(SyncWindow(shown, each.colours, mel.at(each.columns), each.label))
    return windows


def _draw(
    rng: np.random.Generator, content: ClipContent, config: SyncNetConfig, is_positive: bool
) -> _Drawn:
    """One window and its sound, both at the same changed speed."""
    speed = 1 + config.time_warp * rng.uniform(-1, 1)
    length = max(config.num_frames, round(config.num_frames * speed))
    distance = round(config.min_distance * max(1.0, speed))
    start, other = two_starts(rng, content.clip.num_frames, length, distance)
    index = start + np.minimum(np.round(np.arange(config.num_frames) * speed), length - 1)
    shift = draw_shift(rng, content.side, config.shift)
    colours = draw_colours(rng, config.augment)
    begin = MEL_RATE * (start if is_positive else other) // FPS
    columns = begin + np.arange(window_columns(config.num_frames)) * speed
    return _Drawn(index.astype(np.int64), columns, shift, colours, float(is_positive))


class _Mel:
    """The spectrogram of a clip, of which only what is asked for is computed if possible."""

    def __init__(
        self, content: ClipContent, config: SyncNetConfig, rng: np.random.Generator, windows: int
    ) -> None:
        self.content = content
        self.whole: NDArray[np.float32] | None = None
        self.sound = content.audio() if windows >= SEVERAL else None
        if config.sound_augment > 0:
            changed = change_sound(content.audio(), rng, config.sound_augment)
            self.whole = mel_spectrogram(changed).numpy()

    def at(self, columns: NDArray[np.float64]) -> NDArray[np.float32]:
        """(80, n) at fractional columns of the whole clip's spectrogram."""
        if self.whole is not None:
            return sample_columns(self.whole, columns)
        frames = self.content.clip.num_frames
        last = frames * MEL_RATE // FPS
        columns = np.clip(columns, 0, last)
        per_frame = MEL_RATE / FPS
        first = max(0, floor((columns.min() - EDGE) / per_frame)) // GRID * GRID
        end = min(frames, ceil((columns.max() + 1 + EDGE) / per_frame) + 1)
        if self.sound is None:
            sound = self.content.audio(first, end - first)
        else:
            sound = self.sound[first * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
        mel = mel_spectrogram(sound).numpy()
        return sample_columns(mel, columns - first // GRID * GRID_COLUMNS)


def sample_columns(mel: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Mel (80, n) at fractional columns, linearly interpolated; the last one is repeated."""
    last = mel.shape[1] - 1
    positions = np.clip(positions, 0, last)
    left = np.minimum(positions.astype(int), max(0, last - 1))
    part = (positions - left).astype(np.float32)
    right = np.minimum(left + 1, last)
    return mel[:, left] * (1 - part) + mel[:, right] * part
