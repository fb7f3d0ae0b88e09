"""Windows for the U-Net: what to generate, who it is, what is said."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.faces.points import OUTER_LIPS
from datasets.media import SAMPLES_PER_FRAME
from datasets.shards.clip_content import ClipContent
from models.audio.mel import FPS, MEL_RATE, mel_spectrogram, mel_window, window_columns
from tasks.recipes.config import UNetConfig
from tasks.train.augment import Colours, change_sound, draw_colours
from tasks.train.sync_windows import GRID
from tasks.train.tokens import Heard
from tasks.train.windows import two_starts

MOUTH_MARGIN = 0.35
"""Margin on each side of the lips' box, as a share of its width: the skin that moves along."""
CONTEXT = 6
"""Video frames of sound on either side of a window that its tokens may depend on."""


@dataclass(frozen=True)
class UNetWindow:
    """One target with all that belongs to it; see `UNetBatch`."""

    target: NDArray[np.uint8]
    """(f, R, R, 3)."""
    around: NDArray[np.uint8] | None
    """(f, R, R, 3) the surroundings, if they are of another moment."""
    reference: NDArray[np.uint8]
    """(f, R, R, 3)."""
    colours: Colours
    heard: Heard
    mouth: NDArray[np.float32]
    """(f, 4)."""
    mel: NDArray[np.float32]
    """(80, 52)."""


@dataclass(frozen=True)
class _Drawn:
    starts: tuple[int, ...]
    """First frames of target, reference and, if they are swapped, surroundings."""
    colours: Colours
    heard: Heard
    mel: NDArray[np.float32]


def unet_reach(config: UNetConfig, num_frames: int) -> int:
    """Frames that a clip must have."""
    return num_frames + config.min_distance


def unet_windows(
    content: ClipContent,
    config: UNetConfig,
    num_frames: int,
    rng: np.random.Generator,
    count: int,
    keep: Sequence[int] | None = None,
) -> list[UNetWindow]:
    """Windows of one clip, which is decoded once.

    Args:
        content: the clip.
        config: distances, and how much is changed.
        num_frames: length of a window; every `config.frame_step`-th frame of it is used.
        rng: source of all draws.
        count: how many.
        keep: which of them are wanted; None: all. What is drawn is the same.
    """
    sound = content.audio()
    drawn = [_draw(rng, content, sound, config, num_frames) for _ in range(count)]
    drawn = drawn if keep is None else [drawn[each] for each in keep]
    steps = np.arange(0, num_frames, config.frame_step)
    index = [start + steps for each in drawn for start in each.starts]
    frames = iter(np.split(content.frames(np.concatenate(index)), len(index)))
    windows = []
    for each in drawn:
        target, reference, *around = (next(frames) for _ in each.starts)
        points = content.landmarks(each.starts[0], num_frames)[:: config.frame_step]
        mouth = mouth_boxes(points, content.side)
        windows.append(
            UNetWindow(
                target,
                around[0] if around else None,
                reference,
                each.colours,
                each.heard,
                mouth,
                each.mel,
            )
        )
    return windows


def _draw(
    rng: np.random.Generator,
    content: ClipContent,
    whole: NDArray[np.float32],
    config: UNetConfig,
    num_frames: int,
) -> _Drawn:
    """Everything of a window but its pictures.

    Args:
        rng: source of the draws.
        content: the clip.
        whole: the clip's sound.
        config: distances, and how much is changed.
        num_frames: length of a window.
    """
    length = content.clip.num_frames
    start, elsewhere = two_starts(rng, length, num_frames, config.min_distance)
    starts = [start, elsewhere]
    if rng.random() < config.swap_surroundings:
        starts.append(int(rng.integers(length - num_frames + 1)))
    colours = draw_colours(rng, config.augment)
    first = max(0, start - CONTEXT) // GRID * GRID
    last = start + num_frames + CONTEXT
    sound = whole[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
    if config.sound_augment > 0:
        sound = change_sound(sound, rng, config.sound_augment)
    begin = MEL_RATE * start // FPS - MEL_RATE * first // FPS
    columns = begin + window_columns(num_frames)
    mel = mel_window(mel_spectrogram(sound), 0, columns)[:, begin:].numpy()
    dropped = rng.random() < config.audio_dropout
    if config.sound_augment > 0:
        heard = Heard(sound, start - first, num_frames, config.frame_step, "", dropped)
    else:
        name = content.clip.clip_id
        heard = Heard(whole, start, num_frames, config.frame_step, name, dropped)
    return _Drawn(tuple(starts), colours, heard, mel)


def mouth_boxes(landmarks: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Boxes (t, 4) around the mouths of landmarks (t, 478, 2), as shares of the side."""
    lips = landmarks[:, OUTER_LIPS].astype(np.float32) / side
    low, high = lips.min(1), lips.max(1)
    margin = MOUTH_MARGIN * (high[:, :1] - low[:, :1])
    return np.concatenate([low - margin, high + margin], axis=1)
