"""Whole clips through SyncNet, many windows at a time."""

import torch
from torch.nn import functional as F

from models.audio.mel import SAMPLES_PER_FRAME, Audio
from models.audio.mfcc import mfcc
from models.syncnet.syncnet_v2 import (
    SIZE,
    STEPS_PER_FRAME,
    WINDOW_FRAMES,
    WINDOW_STEPS,
    SyncNet,
)


class ClipFeatures:
    """Features of every 5-frame window of clips.

    Args:
        network: the network in eval mode; its device is used.
        batch: windows at a time; memory grows with this number (about 15 MB each), not with the
            clip.
    """

    def __init__(self, network: SyncNet, batch: int = 16) -> None:
        self._network, self._batch = network, batch
        self._device = next(network.parameters()).device

    @torch.no_grad()
    def __call__(self, frames: torch.Tensor, wave: Audio) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of a clip, one per frame.

        Args:
            frames: (t, 3, h, w) RGB, uint8 or floating point in 0..255, at 25 fps. Anything but
                whole numbers, also after resizing, is rounded: the published program reads
                pictures of 8 bits.
            wave: (samples,) mono at 16 kHz from the first frame on.

        Returns:
            lips and sound, (n, 1024) each on the CPU, n = min(t, samples // 640) - 5 as in the
            published program.

        Raises:
            ValueError: the clip is too short for one window.
        """
        count = min(len(frames), len(wave) // SAMPLES_PER_FRAME) - WINDOW_FRAMES
        if count < 1:
            raise ValueError(
                f"SyncNet needs more than {WINDOW_FRAMES} frames with sound, got {len(frames)} "
                f"frames and {len(wave)} samples"
            )
        steps = mfcc(wave).to(device=self._device, dtype=torch.float32).T
        sounds = steps.unfold(1, WINDOW_STEPS, STEPS_PER_FRAME)[:, :count].transpose(0, 1)
        lips, sound = [], []
        for start in range(0, count, self._batch):
            stop = min(start + self._batch, count)
            part = _pixels(frames[start : stop + WINDOW_FRAMES - 1].to(self._device))
            # The network takes windows of BGR.
            windows = part.flip(1).unfold(0, WINDOW_FRAMES, 1).movedim(-1, 2)
            lips.append(self._network.forward_lip(windows).cpu())
            sound.append(self._network.forward_audio(sounds[start:stop, None]).cpu())
        return torch.cat(lips), torch.cat(sound)


def _pixels(frames: torch.Tensor) -> torch.Tensor:
    """(t, 3, h, w) -> (t, 3, 224, 224), whole numbers in float32."""
    if frames.shape[-2:] != (SIZE, SIZE):
        frames = F.interpolate(frames.float(), (SIZE, SIZE), mode="bilinear", antialias=True)
    return frames.float().round().clamp(0, 255)
