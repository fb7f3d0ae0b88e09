"""A sync network small enough to learn on a CPU within minutes (the tiny recipe).

Same interface and loss as StableSyncNet, but with a strong prior: each video frame and
each stretch of audio becomes a few numbers, and only how these *change over the window*
enters the embedding. Subtracting the mean over time cancels who speaks, the room and the
recording, which is why it generalises to speakers it has never seen.
"""

import torch
from torch import nn
from torch.nn import functional as F


def _over_time(features: torch.Tensor, floor: float) -> torch.Tensor:
    """(b, c, t) with zero mean and about unit variance over t; `floor` suppresses stillness."""
    centred = features - features.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + floor).rsqrt()


class FrameSyncNet(nn.Module):
    """Per-frame encoders whose features are compared as courses over a 16-frame window.

    Args:
        num_frames: frames per window.
        features: numbers per frame and modality.
        width: channels of the encoders.
        size: height and width to which the lower half of the face is reduced.
        channels: of a frame: 3 of a picture, or those of latents.
        dropout: on the per-frame visual channels.
    """

    def __init__(
        self,
        num_frames: int = 16,
        features: int = 16,
        width: int = 32,
        size: tuple[int, int] = (32, 64),
        dropout: float = 0.2,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.num_frames, self.channels = num_frames, channels
        self.size = (int(size[0]), int(size[1]))
        self.embedding_dim = num_frames * features
        self.visual = nn.Sequential(
            nn.Conv2d(channels, width, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(width * (self.size[0] // 8) * (self.size[1] // 8), features),
        )
        self.audio = nn.Sequential(
            nn.Conv1d(80, 2 * width, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(2 * width, features, 5, padding=2),
        )
        self.visual_course = nn.Conv1d(features, features, 5, padding=2)
        self.audio_course = nn.Conv1d(features, features, 5, padding=2)

    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """(b, f, c, h/2, w) in [-1, 1] -> (b, f * features), unit and non-negative."""
        b, f = frames.shape[:2]
        small = F.interpolate(frames.flatten(0, 1), self.size, mode="area")
        small = small.unflatten(0, (b, f))
        motion = 3 * (small - small.mean(1, keepdim=True))
        course = self.visual(motion.flatten(0, 1)).view(b, f, -1).transpose(1, 2)
        return self._embed(self.visual_course(_over_time(course, 0.05)))

    def encode_mel(self, mel: torch.Tensor) -> torch.Tensor:
        """(b, 1, 80, 52) in [-4, 4] -> (b, f * features), unit and non-negative."""
        columns = self.audio(mel[:, 0] / 4)
        course = F.interpolate(columns, self.num_frames, mode="linear", align_corners=False)
        return self._embed(self.audio_course(_over_time(course, 0.05)))

    @staticmethod
    def _embed(course: torch.Tensor) -> torch.Tensor:
        return F.normalize(F.relu(course).flatten(1), dim=1)

    def forward(self, frames: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings of windows of frames and of their sound.

        Args:
            frames: (b, 16, 3, h/2, w) lower half of the aligned face in [-1, 1]; of another number
                of channels, latents (b, 16, c, r, r) of all of it.
            mel: (b, 1, 80, 52).

        Returns:
            vision and audio, (b, 16 * features) each, unit length and non-negative.
        """
        expected = (self.num_frames, self.channels)
        if frames.ndim != 5 or tuple(frames.shape[1:3]) != expected:
            raise ValueError(
                f"expected frames of shape (b, {expected[0]}, {expected[1]}, h, w), got "
                f"{tuple(frames.shape)}"
            )
        return self.encode_frames(frames), self.encode_mel(mel)
