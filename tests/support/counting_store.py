"""Clips that say of each frame which one it is: in pictures, landmarks and sound."""

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.media import SAMPLES_PER_FRAME
from datasets.shards.clip_content import ClipContent
from datasets.shards.clip_index import Clip, ClipTable
from datasets.shards.clips import ClipStore
from models.audio.mel import Audio

SIDE = 32


class CountingStore(ClipStore):
    """Frame t of clip c is grey level 100 c + t, its landmarks are at t, its sound (t + 1) / 100.

    Args:
        lengths: frames of each clip.
        level: the grey level of every frame instead.
    """

    def __init__(self, *lengths: int, level: int | None = None) -> None:
        self.resolution, self.level = SIDE, level
        self.clips = ClipTable.of(
            [
                Clip(f"clip{number}", "speaker", "train", length, f"{number}.mp4", SIDE)
                for number, length in enumerate(lengths)
            ]
        )

    def _counted(self, clip_id: str) -> NDArray[np.int64]:
        return np.arange(next(c.num_frames for c in self.clips if c.clip_id == clip_id))

    def content(self, clip_id: str) -> ClipContent:
        clip = next(clip for clip in self.clips if clip.clip_id == clip_id)
        return _Counted(clip, lambda name: b"", SIDE, "")._of(self)

    def frames(self, clip_id: str) -> NDArray[np.uint8]:
        levels = self._counted(clip_id) + 100 * int(clip_id.removeprefix("clip"))
        if self.level is not None:
            levels[:] = self.level
        shape = (len(levels), SIDE, SIDE, 3)
        return np.broadcast_to(levels[:, None, None, None], shape).astype(np.uint8)

    def audio(self, clip_id: str) -> NDArray[np.float32]:
        return np.repeat((self._counted(clip_id) + 1) / 100, SAMPLES_PER_FRAME).astype(np.float32)

    def landmarks(self, clip_id: str) -> NDArray[np.float32]:
        counted = self._counted(clip_id).astype(np.float32)
        return np.broadcast_to(counted[:, None, None], (len(counted), 478, 2)).copy()


class _Counted(ClipContent):
    store: CountingStore

    def _of(self, store: CountingStore) -> "_Counted":
        self.store = store
        return self

    def frames(
        self, wanted: NDArray[np.int64] | None = None, lower: bool = False
    ) -> NDArray[np.uint8]:
        frames = self.store.frames(self.clip.clip_id)[:, SIDE // 2 if lower else 0 :]
        return frames if wanted is None else frames[wanted]

    def audio(self, first: int = 0, count: int | None = None) -> NDArray[np.float32]:
        count = self.clip.num_frames - first if count is None else count
        sound = self.store.audio(self.clip.clip_id)
        return sound[first * SAMPLES_PER_FRAME :][: count * SAMPLES_PER_FRAME]

    def landmarks(self, first: int = 0, count: int | None = None) -> NDArray[np.float32]:
        count = self.clip.num_frames - first if count is None else count
        return self.store.landmarks(self.clip.clip_id)[first : first + count]


class LevelTokens:
    """An audio encoder with one token per frame: the mean of its samples."""

    width = tokens_per_frame = 1

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, wave: Audio, num_frames: int) -> torch.Tensor:
        self.encoded.append(num_frames)
        samples = torch.as_tensor(wave)[: num_frames * SAMPLES_PER_FRAME]
        missing = num_frames * SAMPLES_PER_FRAME - len(samples)
        samples = torch.nn.functional.pad(samples, (0, missing))
        return samples.view(num_frames, -1).mean(1).view(num_frames, 1, 1)


def shown(pixels: torch.Tensor) -> list[int]:
    """The grey levels of frames (f, 3, h, w) in [-1, 1]."""
    return [round(float(level)) for level in (pixels[:, 0, -1, -1] + 1) * 127.5]
