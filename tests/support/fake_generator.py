"""A face generator without networks: brightens faces, a bit more with every window."""

from typing import Any

import numpy as np
import pytest
import torch

from datasets.media import VideoWriter
from datasets.media.canvas import Canvas
from tasks.lipsync import video as lipsync_video
from tasks.lipsync.generator import FaceGenerator


class Brightener(FaceGenerator):
    """Adds 10 to the first window, 11 to the second, and so on."""

    def __init__(self, resolution: int = 8, reference: str = "still") -> None:
        self.resolution, self.num_frames, self.reference = resolution, 16, reference
        self.bf16 = None
        self.windows = 0
        # Everything but a rim, so that a part of the aligned face is kept.
        self.region = np.zeros((resolution, resolution), np.float32)
        inner = slice(resolution // 4, resolution - resolution // 4)
        self.region[inner, inner] = 1

    def _tokens(self, wave: np.ndarray, count: int) -> torch.Tensor:
        return torch.zeros(count, 1, 1)

    def window(self, faces: np.ndarray, references: np.ndarray, tokens: torch.Tensor) -> np.ndarray:
        assert len(faces) == len(references) == len(tokens) == self.num_frames
        self.windows += 1
        return np.minimum(faces.astype(np.float32) + 9 + self.windows, 255)


def recorded_frames(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Takes up the frames that lip-sync writes, as they are before they are encoded."""
    frames: list[np.ndarray] = []

    class Recorder(VideoWriter):
        def write(self, picture: np.ndarray | Canvas, time_s: Any = None) -> None:
            assert isinstance(picture, Canvas)
            frames.append(picture.rgb.copy())
            super().write(picture, time_s)

    monkeypatch.setattr(lipsync_video, "VideoWriter", Recorder)
    return frames
