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
    pose: NDArray[np.uint8] | None = None
    """(1, R, R, 3) an earlier frame; None where the model is shown none."""
    pose_shown: float = 1.0
    """0 where zeros take its place."""


@dataclass(frozen=True)
class _Drawn:
    starts: tuple[int, ...]
    """First frames of target, reference and, if they are swapped, surroundings."""
    colours: Colours
    heard: Heard
    mel: NDArray[np.float32]
    pose: tuple[int, float] | None
    """Number of the earlier frame, and whether it is shown."""


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
    lag: int = 0,
) -> list[UNetWindow]:
    """Windows of one clip, which is decoded once.

    Args:
        content: the clip.
        config: distances, and how much is changed.
        num_frames: length of a window; every `config.frame_step`-th frame of it is used.
        rng: source of all draws.
        count: how many.
        keep: which of them are wanted; None: all. What is drawn is the same.
        lag: how many frames before the window the model is shown one; 0: it is not.
    """
    sound = content.audio()
    drawn = [_draw(rng, content, sound, config, num_frames, lag) for _ in range(count)]
    drawn = drawn if keep is None else [drawn[each] for each in keep]
    steps = np.arange(0, num_frames, config.frame_step)
    index = [start + steps for each in drawn for start in each.starts]
    index += [np.array(each.pose[:1]) for each in drawn if each.pose]
    cuts = np.cumsum([len(each) for each in index])[:-1]
    pictures = np.split(content.frames(np.concatenate(index)), cuts)
    poses = iter(pictures[len(pictures) - len(drawn) :] if lag else [None] * len(drawn))
    frames = iter(pictures)
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
                next(poses),
                each.pose[1] if each.pose else 1.0,
            )
        )
    return windows


def _draw(
    rng: np.random.Generator,
    content: ClipContent,
    whole: NDArray[np.float32],
    config: UNetConfig,
    num_frames: int,
    lag: int,
) -> _Drawn:
    """Everything of a window but its pictures.

    Args:
        rng: source of the draws.
        content: the clip.
        whole: the clip's sound.
        config: distances, and how much is changed.
        num_frames: length of a window.
        lag: as in `unet_windows`.
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
    return _Drawn(tuple(starts), colours, heard, mel, _draw_pose(rng, config, start, lag))


def _draw_pose(
    rng: np.random.Generator, config: UNetConfig, start: int, lag: int
) -> tuple[int, float] | None:
    """Number of the frame that a window at `start` is shown, and whether it is shown.

    At a clip's beginning there is none before it: half of these windows are shown their own first
    frame, half zeros.
    """
    if not lag:
        return None
    dropped = rng.random() < config.pose_dropout
    if start >= lag:
        return start - lag, float(not dropped)
    return start, float(not dropped and rng.random() < 0.5)


def mouth_boxes(landmarks: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Boxes (t, 4) around the mouths of landmarks (t, 478, 2), as shares of the side."""
    lips = landmarks[:, OUTER_LIPS].astype(np.float32) / side
    low, high = lips.min(1), lips.max(1)
    margin = MOUTH_MARGIN * (high[:, :1] - low[:, :1])
    return np.concatenate([low - margin, high + margin], axis=1)
