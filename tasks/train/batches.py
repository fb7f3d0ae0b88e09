"""Training batches: which windows of which clips, changed how, as CPU tensors.

A batch is a function of (seed, step, rank) and the dataset: no state is carried over from one
to the next. Windows come in groups from one clip, since decoding a clip costs more than
cutting many windows from it.
"""

from collections import OrderedDict
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.errors import UserError
from datasets.faces.points import OUTER_LIPS
from datasets.media import SAMPLES_PER_FRAME
from datasets.shards.clips import Clip, ClipStore
from models.audio.encoders import AudioEncoder
from models.audio.mel import FPS, MEL_RATE, WINDOW_COLUMNS, mel_spectrogram, mel_window
from tasks.recipes.config import AutoencoderConfig, SyncNetConfig, UNetConfig
from tasks.train.augment import change_sound, draw_colours, draw_shift, shift_frames
from tasks.train.windows import rng_for, two_starts

MOUTH_MARGIN = 0.35
"""Margin on each side of the lips' box, as a share of its width: the skin that moves along."""
CONTEXT = 6
"""Video frames of sound on either side of a window that its tokens may depend on."""
GRID = 5
"""Every fifth video frame begins with a mel column, so slices that start there have the
columns of the whole clip."""
CACHED_CLIPS = 64
"""Clips whose audio tokens are kept."""


class Batch:
    """Tensors that travel together."""

    def to(self, device: torch.device) -> Self:
        """Copy the batch to another device."""
        moved = {
            each.name: getattr(self, each.name).to(device, non_blocking=True)
            for each in fields(self)  # type: ignore[arg-type]
        }
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class SyncBatch(Batch):
    """Windows with sound that does or does not belong to them."""

    frames: Tensor
    """(b, f, 3, h/2, w) lower half of the face in [-1, 1]."""
    mel: Tensor
    """(b, 1, 80, 52)."""
    labels: Tensor
    """(b,) 1 if in sync, else 0."""


@dataclass(frozen=True)
class UNetBatch(Batch):
    """What the U-Net learns from. Pixels are in [-1, 1]."""

    target: Tensor
    """(b, f, 3, R, R) the pictures to generate."""
    surroundings: Tensor
    """(b, f, 3, R, R) the pictures under the mask: the target, or another moment."""
    swapped: Tensor
    """(b,) 1 where the surroundings are another moment."""
    reference: Tensor
    """(b, f, 3, R, R) shows who the person is, from elsewhere in the clip."""
    tokens: Tensor
    """(b, f, n, width) audio of the target; zeros where it was dropped."""
    mouth: Tensor
    """(b, f, 4) box around the target's mouth, x0 y0 x1 y1 as shares of the side."""
    mel: Tensor
    """(b, 1, 80, 52) sound of the target, for the sync network."""


def long_enough(clips: list[Clip], frames: int) -> list[Clip]:
    """The clips with at least a given number of frames.

    Raises:
        UserError: no clip is long enough.
    """
    kept = [clip for clip in clips if clip.num_frames >= frames]
    if not kept:
        longest = max((clip.num_frames for clip in clips), default=0)
        raise UserError(
            f"no clip of the dataset is long enough: training needs {frames} frames, the "
            f"longest of {len(clips)} clips has {longest}"
        )
    return kept


def autoencoder_batch(
    store: ClipStore, config: AutoencoderConfig, seed: int, step: int, rank: int = 0
) -> Tensor:
    """Single frames (b, 3, R, R) in [-1, 1] with changed colours and small shifts."""
    pixels = []
    groups = -(-config.batch_size // config.frames_per_clip)
    for group in range(groups):
        rng = rng_for(seed, step, rank * groups + group)
        clip = store.clips[int(rng.integers(len(store.clips)))]
        frames = store.frames(clip.clip_id)
        for index in rng.integers(len(frames), size=config.frames_per_clip):
            shift = draw_shift(rng, frames.shape[1], config.shift)
            colours = draw_colours(rng, config.augment)
            pixels.append(colours.apply(shift_frames(frames[index], shift)))
    return torch.from_numpy(np.stack(pixels[: config.batch_size]))


def sync_batch(
    store: ClipStore,
    config: SyncNetConfig,
    seed: int,
    step: int,
    rank: int = 0,
) -> SyncBatch:
    """Windows and their sound, every second pair out of sync within its own clip."""
    reach = round(config.num_frames * (1 + config.time_warp))
    distance = round(config.min_distance * (1 + config.time_warp))
    clips = long_enough(store.clips, reach + distance)
    items = []
    groups = -(-config.batch_size // config.windows_per_clip)
    for group in range(groups):
        rng = rng_for(seed, step, rank * groups + group)
        clip = clips[int(rng.integers(len(clips)))]
        frames = store.frames(clip.clip_id)
        sound = change_sound(store.audio(clip.clip_id), rng, config.sound_augment)
        mel = mel_spectrogram(sound).numpy()
        for window in range(config.windows_per_clip):
            is_positive = (group * config.windows_per_clip + window) % 2 == 0
            items.append(_sync_pair(rng, frames, mel, config, is_positive))
    items = items[: config.batch_size]
    frames_b, mel_b, labels_b = zip(*items, strict=True)
    return SyncBatch(
        torch.from_numpy(np.stack(frames_b)),
        torch.from_numpy(np.stack(mel_b))[:, None],
        torch.tensor(labels_b, dtype=torch.float32),
    )


def _sync_pair(
    rng: np.random.Generator,
    frames: NDArray[np.uint8],
    mel: NDArray[np.float32],
    config: SyncNetConfig,
    is_positive: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """One window (f, 3, h/2, w) with mel (80, 52) and label, all at the same changed speed."""
    speed = 1 + config.time_warp * rng.uniform(-1, 1)
    length = max(config.num_frames, round(config.num_frames * speed))
    distance = round(config.min_distance * max(1.0, speed))
    start, other = two_starts(rng, len(frames), length, distance)
    index = start + np.minimum(np.round(np.arange(config.num_frames) * speed), length - 1)
    shift = draw_shift(rng, frames.shape[1], config.shift)
    chosen = shift_frames(frames[index.astype(int)], shift)[:, frames.shape[1] // 2 :]
    pixels = draw_colours(rng, config.augment).apply(chosen)
    begin = MEL_RATE * (start if is_positive else other) // FPS
    columns = sample_columns(mel, begin + np.arange(WINDOW_COLUMNS) * speed)
    return pixels, columns, float(is_positive)


def sample_columns(mel: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Mel (80, n) at fractional columns, linearly interpolated; the last one is repeated."""
    last = mel.shape[1] - 1
    positions = np.clip(positions, 0, last)
    left = np.minimum(positions.astype(int), max(0, last - 1))
    part = (positions - left).astype(np.float32)
    right = np.minimum(left + 1, last)
    return mel[:, left] * (1 - part) + mel[:, right] * part


class TokenCache:
    """Audio tokens of windows; those of whole clips are kept where the sound is unchanged."""

    def __init__(self, encoder: AudioEncoder) -> None:
        self.encoder = encoder
        self.kept: OrderedDict[str, Tensor] = OrderedDict()

    def unchanged(self, store: ClipStore, clip: Clip, start: int, num_frames: int) -> Tensor:
        """Tokens (f, n, width) of a window, computed with the whole clip as context."""
        if clip.clip_id not in self.kept:
            audio = store.audio(clip.clip_id)
            self.kept[clip.clip_id] = self.encoder.encode(audio, clip.num_frames).cpu()
            while len(self.kept) > CACHED_CLIPS:
                self.kept.popitem(last=False)
        self.kept.move_to_end(clip.clip_id)
        return self.kept[clip.clip_id][start : start + num_frames]

    def changed(self, sound: NDArray[np.float32], lead: int, num_frames: int) -> Tensor:
        """Tokens (f, n, width) of `sound`, which begins `lead` frames before the window."""
        tokens = self.encoder.encode(sound, lead + num_frames)
        return tokens[lead:].cpu()


def unet_batch(
    store: ClipStore,
    tokens: TokenCache,
    config: UNetConfig,
    num_frames: int,
    seed: int,
    step: int,
    rank: int = 0,
) -> UNetBatch:
    """Target windows with a reference from elsewhere in the same clip.

    Args:
        num_frames: length of a window; every `config.frame_step`-th frame of it is used.
    """
    clips = long_enough(store.clips, num_frames + config.min_distance)
    items = []
    groups = -(-config.batch_size // config.windows_per_clip)
    for group in range(groups):
        rng = rng_for(seed, step, rank * groups + group)
        clip = clips[int(rng.integers(len(clips)))]
        items += [
            _unet_window(rng, store, clip, tokens, config, num_frames)
            for _ in range(config.windows_per_clip)
        ]
    columns = zip(*items[: config.batch_size], strict=True)
    return UNetBatch(*(torch.stack(column) for column in columns))


def _unet_window(
    rng: np.random.Generator,
    store: ClipStore,
    clip: Clip,
    tokens: TokenCache,
    config: UNetConfig,
    num_frames: int,
) -> tuple[Tensor, ...]:
    """The fields of `UNetBatch`, in order, for one window."""
    start, elsewhere = two_starts(rng, clip.num_frames, num_frames, config.min_distance)
    swapped = rng.random() < config.swap_surroundings
    around = int(rng.integers(clip.num_frames - num_frames + 1)) if swapped else start
    colours = draw_colours(rng, config.augment)
    frames = store.frames(clip.clip_id)
    step = config.frame_step

    def pixels(first: int) -> Tensor:
        return torch.from_numpy(colours.apply(frames[first : first + num_frames : step]))

    target = pixels(start)
    heard, mel = _window_sound(rng, store, clip, tokens, config, start, num_frames)
    if rng.random() < config.audio_dropout:
        heard = torch.zeros_like(heard)
    landmarks = store.landmarks(clip.clip_id)[start : start + num_frames : step]
    return (
        target,
        pixels(around) if swapped else target,
        torch.tensor(float(swapped)),
        pixels(elsewhere),
        heard[::step].contiguous(),
        torch.from_numpy(mouth_boxes(landmarks, frames.shape[1])),
        mel,
    )


def _window_sound(
    rng: np.random.Generator,
    store: ClipStore,
    clip: Clip,
    tokens: TokenCache,
    config: UNetConfig,
    start: int,
    num_frames: int,
) -> tuple[Tensor, Tensor]:
    """Tokens (num_frames, n, width) and mel (1, 80, 52) of a window's own sound."""
    audio = store.audio(clip.clip_id)
    first = max(0, start - CONTEXT) // GRID * GRID
    last = start + num_frames + CONTEXT
    sound = audio[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
    if config.sound_augment > 0:
        sound = change_sound(sound, rng, config.sound_augment)
        heard = tokens.changed(sound, start - first, num_frames)
    else:
        heard = tokens.unchanged(store, clip, start, num_frames)
    begin = MEL_RATE * start // FPS - MEL_RATE * first // FPS
    mel = mel_window(mel_spectrogram(sound), 0, begin + WINDOW_COLUMNS)[:, begin:]
    return heard, mel[None]


def mouth_boxes(landmarks: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Boxes (t, 4) around the mouths of landmarks (t, 478, 2), as shares of the side."""
    lips = landmarks[:, OUTER_LIPS].astype(np.float32) / side
    low, high = lips.min(1), lips.max(1)
    margin = MOUTH_MARGIN * (high[:, :1] - low[:, :1])
    return np.concatenate([low - margin, high + margin], axis=1)
