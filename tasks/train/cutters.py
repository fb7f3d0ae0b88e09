"""What each stage cuts from the clips that it streams."""

from collections.abc import Sequence
from dataclasses import dataclass

from datasets.shards.clip_content import ClipContent
from tasks.recipes.config import SyncNetConfig, UNetConfig
from tasks.train.batches import SyncWindows, UNetWindows
from tasks.train.sync_windows import SyncWindow, sync_reach, sync_windows
from tasks.train.unet_windows import UNetWindow, unet_reach, unet_windows
from tasks.train.windows import rng_for


@dataclass(frozen=True)
class SyncCutter:
    """Windows of the sync network's stage."""

    config: SyncNetConfig

    @property
    def members(self) -> tuple[str, ...]:
        return ("mp4", "flac")

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    @property
    def windows_per_clip(self) -> int:
        return self.config.windows_per_clip

    @property
    def reach(self) -> int:
        return sync_reach(self.config)

    @property
    def window_bytes(self) -> int:
        whole = self.config.num_frames * self.config.resolution**2 * 3
        return whole // 2 if self.config.sees == "pixels" else whole

    def cut(
        self, content: ClipContent, place: tuple[int, ...], keep: Sequence[int]
    ) -> list[SyncWindow]:
        # By turns, so that half of all windows are in sync, and each clip is in both halves.
        turn = sum(place[-2:])
        in_sync = [(turn + each) % 2 == 0 for each in range(self.windows_per_clip)]
        return sync_windows(content, self.config, rng_for(*place), in_sync, keep)

    def batch(self, windows: Sequence[SyncWindow]) -> SyncWindows:
        return SyncWindows.of(windows)


@dataclass(frozen=True)
class UNetCutter:
    """Windows of a U-Net's stage."""

    config: UNetConfig
    num_frames: int
    """Length of a window."""
    resolution: int
    lag: int = 0
    """How many frames before a window the model is shown one; 0: it is not."""

    @property
    def members(self) -> tuple[str, ...]:
        return ("mp4", "flac", "npy")

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    @property
    def windows_per_clip(self) -> int:
        return self.config.windows_per_clip

    @property
    def reach(self) -> int:
        return unet_reach(self.config, self.num_frames)

    @property
    def window_bytes(self) -> int:
        # Target, reference and the earlier frame.
        frames = 2 * -(-self.num_frames // self.config.frame_step) + bool(self.lag)
        return frames * self.resolution**2 * 3

    def cut(
        self, content: ClipContent, place: tuple[int, ...], keep: Sequence[int]
    ) -> list[UNetWindow]:
        return unet_windows(
            content,
            self.config,
            self.num_frames,
            rng_for(*place),
            self.windows_per_clip,
            keep,
            self.lag,
        )

    def batch(self, windows: Sequence[UNetWindow]) -> UNetWindows:
        return UNetWindows.of(windows)
