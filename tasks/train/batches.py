"""Training batches of windows, as CPU tensors, and the same on the device that trains.

A window is a function of (seed, place, clip): no state is carried over from one to the next.
Several windows come from one clip, since opening a clip and its sound costs more than cutting
another window from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from datasets.errors import UserError
from datasets.shards.clip_content import ClipContent
from datasets.shards.clip_index import ClipTable
from datasets.shards.clips import ClipStore
from tasks.recipes.config import AutoencoderConfig, SyncNetConfig, UNetConfig
from tasks.train.augment import draw_colours, draw_shift, shift_frames
from tasks.train.pictures import Pictures
from tasks.train.sync_windows import SyncWindow, sync_reach, sync_windows
from tasks.train.tokens import Hearing, TokenCache
from tasks.train.unet_windows import UNetWindow, unet_reach, unet_windows
from tasks.train.windows import rng_for


class _Travels:
    """Fields that are pinned together."""

    def pin_memory(self) -> Self:
        """A copy in memory that a GPU reads directly."""
        pinned: dict[str, Any] = {
            each.name: getattr(self, each.name).pin_memory()
            for each in fields(self)  # type: ignore[arg-type]
        }
        return type(self)(**pinned)


@dataclass(frozen=True)
class SyncBatch:
    """Windows with sound that does or does not belong to them."""

    frames: Tensor
    """(b, f, 3, h/2, w) lower half of the face in [-1, 1]."""
    mel: Tensor
    """(b, 1, 80, 52)."""
    labels: Tensor
    """(b,) 1 if in sync, else 0."""


@dataclass(frozen=True)
class SyncWindows(_Travels):
    """A `SyncBatch` before it is on its device."""

    frames: Pictures
    mel: Tensor
    labels: Tensor

    @classmethod
    def of(cls, windows: Sequence[SyncWindow]) -> "SyncWindows":
        """Windows together."""
        return cls(
            Pictures.of([each.frames for each in windows], [each.colours for each in windows]),
            torch.from_numpy(np.stack([each.mel for each in windows]))[:, None],
            torch.tensor([each.label for each in windows], dtype=torch.float32),
        )

    def to(self, device: torch.device) -> SyncBatch:
        """The batch on a device."""
        return SyncBatch(*(getattr(self, each.name).to(device) for each in fields(self)))


@dataclass(frozen=True)
class UNetBatch:
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
    pose: Tensor | None = None
    """(b, 1, 3, R, R) an earlier frame; None where the model is shown none."""
    pose_shown: Tensor | None = None
    """(b,) 0 where zeros take its place."""


@dataclass(frozen=True)
class UNetWindows(_Travels):
    """A `UNetBatch` before it is on its device, with sound that is not encoded yet."""

    target: Pictures
    around: Pictures
    """The surroundings of the windows in which they are swapped, in order."""
    swapped: Tensor
    reference: Pictures
    mouth: Tensor
    mel: Tensor
    heard: Hearing
    pose: Pictures
    """As `around`, where the model is shown no earlier frame."""
    pose_shown: Tensor
    """(b,); empty where the model is shown none."""

    @classmethod
    def of(cls, windows: Sequence[UNetWindow]) -> "UNetWindows":
        """Windows together."""
        colours = [each.colours for each in windows]
        poses = [each.pose for each in windows if each.pose is not None]
        posed = [each.pose_shown for each in windows if each.pose is not None]
        swapped = [each for each in windows if each.around is not None]
        # Without any, one window that is not looked at gives the shape.
        shown = [each.around for each in swapped if each.around is not None] or [windows[0].target]
        return cls(
            Pictures.of([each.target for each in windows], colours),
            Pictures.of(shown, [each.colours for each in swapped or windows[:1]]),
            torch.tensor([float(each.around is not None) for each in windows]),
            Pictures.of([each.reference for each in windows], colours),
            torch.from_numpy(np.stack([each.mouth for each in windows])),
            torch.from_numpy(np.stack([each.mel for each in windows]))[:, None],
            Hearing.of([each.heard for each in windows]),
            Pictures.of(poses or [windows[0].target[:1]], colours[: max(1, len(poses))]),
            torch.tensor(posed),
        )

    def __len__(self) -> int:
        return len(self.swapped)

    def part(self, start: int, stop: int) -> "UNetWindows":
        """The windows from `start` to before `stop`."""
        before, upto = (int(self.swapped[:place].sum()) for place in (start, stop))
        # One that is not looked at, if none of these is swapped.
        around = slice(before, upto) if before < upto else slice(0, 1)
        return UNetWindows(
            self.target.part(start, stop),
            self.around.part(around.start, around.stop),
            self.swapped[start:stop],
            self.reference.part(start, stop),
            self.mouth[start:stop],
            self.mel[start:stop],
            Hearing(self.heard.windows[start:stop]),
            self.pose.part(start, stop) if len(self.pose_shown) else self.pose,
            self.pose_shown[start:stop],
        )

    def to(self, device: torch.device, tokens: TokenCache) -> UNetBatch:
        """The batch on a device, its sound encoded."""
        target, swapped = self.target.to(device), self.swapped.to(device)
        surroundings = target
        if bool(self.swapped.any()):
            surroundings = target.clone()
            surroundings[swapped.bool()] = self.around.to(device)
        heard = tokens.encode(self.heard).to(device, non_blocking=True)
        mouth, mel = (each.to(device, non_blocking=True) for each in (self.mouth, self.mel))
        pose: tuple[Tensor | None, Tensor | None] = (None, None)
        if len(self.pose_shown):
            pose = self.pose.to(device), self.pose_shown.to(device, non_blocking=True)
        return UNetBatch(
            target, surroundings, swapped, self.reference.to(device), heard, mouth, mel, *pose
        )


def long_enough(clips: ClipTable, frames: int) -> Sequence[int]:
    """Numbers of the clips with at least a given number of frames.

    Raises:
        UserError: no clip is long enough.
    """
    kept = clips.long_enough(frames)
    if not len(kept):
        longest = int(clips.num_frames.max(initial=0))
        raise UserError(
            f"no clip of the dataset is long enough: training needs {frames} frames, the "
            f"longest of {len(clips)} clips has {longest}"
        )
    return kept  # type: ignore[return-value]


def _draw(store: ClipStore, numbers: Sequence[int], rng: np.random.Generator) -> ClipContent:
    """A clip out of some."""
    return store.content(store.clips[int(numbers[int(rng.integers(len(numbers)))])].clip_id)


def autoencoder_batch(
    store: ClipStore, config: AutoencoderConfig, seed: int, step: int, rank: int = 0
) -> Tensor:
    """Single frames (b, 3, R, R) in [-1, 1] with changed colours and small shifts."""
    pixels = []
    groups = -(-config.batch_size // config.frames_per_clip)
    for group in range(groups):
        rng = rng_for(seed, step, rank * groups + group)
        content = _draw(store, long_enough(store.clips, 1), rng)
        wanted = rng.integers(content.clip.num_frames, size=config.frames_per_clip)
        for frame in content.frames(wanted):
            shift = draw_shift(rng, store.resolution, config.shift)
            colours = draw_colours(rng, config.augment)
            pixels.append(colours.apply(shift_frames(frame, shift)))
    return torch.from_numpy(np.stack(pixels[: config.batch_size]))


def sync_batch(
    store: ClipStore, config: SyncNetConfig, seed: int, step: int, rank: int = 0
) -> SyncWindows:
    """Windows and their sound, every second pair out of sync within its own clip."""
    clips = long_enough(store.clips, sync_reach(config))
    found: list[SyncWindow] = []
    groups = -(-config.batch_size // config.windows_per_clip)
    for group in range(groups):
        rng = rng_for(seed, step, rank * groups + group)
        first = group * config.windows_per_clip
        in_sync = [(first + each) % 2 == 0 for each in range(config.windows_per_clip)]
        found += sync_windows(_draw(store, clips, rng), config, rng, in_sync)
    return SyncWindows.of(found[: config.batch_size])


def unet_batch(
    store: ClipStore,
    config: UNetConfig,
    num_frames: int,
    seed: int,
    step: int,
    rank: int = 0,
    lag: int = 0,
) -> UNetWindows:
    """Target windows with a reference from elsewhere in the same clip.

    Args:
        num_frames: length of a window; every `config.frame_step`-th frame of it is used.
        lag: how many frames before the window the model is shown one; 0: it is not.
    """
    clips = long_enough(store.clips, unet_reach(config, num_frames))
    found: list[UNetWindow] = []
    groups = -(-config.batch_size // config.windows_per_clip)
    for group in range(groups):
        rng = rng_for(seed, step, rank * groups + group)
        content = _draw(store, clips, rng)
        found += unet_windows(content, config, num_frames, rng, config.windows_per_clip, lag=lag)
    return UNetWindows.of(found[: config.batch_size])
