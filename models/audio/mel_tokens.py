"""Audio condition without learned weights: a few mel columns around each video frame.

The tiny recipe conditions its U-Net on these tokens through the same cross-attention
that takes Whisper features in the full model.
"""

import torch
from torch import nn

from models.audio.mel import FPS, MAX_VALUE, MEL_RATE, NUM_MELS, Audio, as_wave, mel_spectrogram


def frame_average(columns: torch.Tensor, starts: torch.Tensor, length: float) -> torch.Tensor:
    """Mean of a signal over stretches of fractional position.

    Args:
        columns: (channels, n), column k covers [k, k + 1); zero outside.
        starts: (m,) where each stretch begins, in columns.
        length: how long each is, in columns.

    Returns:
        (channels, m).
    """
    total = torch.nn.functional.pad(columns.to(torch.float64).cumsum(-1), (1, 0))

    def integral(position: torch.Tensor) -> torch.Tensor:
        position = position.clamp(0, columns.shape[-1])
        left = position.floor().long().clamp_max(columns.shape[-1] - 1)
        part = position - left
        return total[:, left] * (1 - part) + total[:, left + 1] * part

    return ((integral(starts + length) - integral(starts)) / length).to(columns.dtype)


class MelTokens(nn.Module):
    """Each video frame's neighbourhood in the mel spectrogram, one token per neighbour.

    Token j of frame i is the mean mel column over the 40 ms around the time of frame
    i + j - tokens // 2, scaled so that silence is 0 and full scale is `gain`, followed by
    a one-hot code of j, also times `gain`: attention sees content and position separately.

    Args:
        tokens: tokens per frame, odd; 7 reach 3 video frames (120 ms) to either side.
        width: channels per token, at least 80 + tokens; the remaining ones are zero.
        gain: full scale. About 8 lets freshly initialised keys and values of a small
            network tell speech from silence.

    Raises:
        ValueError: `tokens` is even or `width` is too small.
    """

    def __init__(self, tokens: int = 7, width: int = 88, gain: float = 8.0) -> None:
        super().__init__()
        if tokens < 1 or tokens % 2 == 0:
            raise ValueError(f"tokens must be odd and positive, got {tokens}")
        if width < NUM_MELS + tokens:
            raise ValueError(f"width must be at least {NUM_MELS + tokens}, got {width}")
        self.tokens_per_frame = tokens
        self.width = width
        self.gain = gain

    @torch.no_grad()
    def encode(self, wave: Audio, num_frames: int) -> torch.Tensor:
        """Tokens of the first `num_frames` video frames at 25 fps.

        Args:
            wave: (samples,) mono at 16 kHz; silence is assumed after its end.

        Returns:
            (num_frames, tokens, width) float32 on the wave's device.
        """
        loudness = mel_spectrogram(as_wave(wave)) / (2 * MAX_VALUE) + 0.5
        n = self.tokens_per_frame
        step = MEL_RATE / FPS
        frames = torch.arange(-(n // 2), num_frames + n // 2, device=loudness.device)
        # Mel column k is centred on its time, so it covers [k - 1/2, k + 1/2).
        starts = frames.to(torch.float64) * step - step / 2 + 0.5
        per_frame = frame_average(loudness, starts, step).T
        neighbours = per_frame.unfold(0, n, 1).transpose(1, 2)
        code = torch.eye(n, self.width - NUM_MELS, device=loudness.device)
        code = code.expand(num_frames, -1, -1)
        return self.gain * torch.cat([neighbours, code], dim=-1)
