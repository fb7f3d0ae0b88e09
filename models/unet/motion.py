"""Motion modules: attention over the frames of a window (AnimateDiff, arXiv 2307.04725).

LatentSync's stage 2 puts one after each ResNet/attention pair (section 3.4 of arXiv
2412.09262). Every position of the latent attends over time only, twice, with a sinusoidal
table of frame positions; the output is zero at first, so that adding motion modules to a
trained image network changes nothing until they train. Built on diffusers' Attention and
FeedForward; the parameter names are those of the reference checkpoint.
"""

import math

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import nn

from models.unet.attention import make_plain


class FramePosition(nn.Module):
    """Adds the sinusoidal code of each frame's place in the window.

    Args:
        channels: width of the tokens.
        max_frames: longest window.
    """

    pe: torch.Tensor

    def __init__(self, channels: int, max_frames: int) -> None:
        super().__init__()
        position = torch.arange(max_frames, dtype=torch.float32)[:, None]
        even = torch.arange(0, channels, 2, dtype=torch.float32)
        angle = position * torch.exp(even * (-math.log(10_000.0) / channels))
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(1, max_frames, channels)
        self.register_buffer("pe", table)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(b, frames, channels) -> the same.

        Raises:
            ValueError: more frames than the table holds.
        """
        frames, limit = tokens.shape[1], self.pe.shape[1]
        if frames > limit:
            raise ValueError(
                f"a window of {frames} frames was given, but the motion modules know {limit} "
                "positions: use shorter windows or a network with a larger motion_max_frames"
            )
        return tokens + self.pe[:, :frames].to(tokens.dtype)


class FrameAttention(Attention):
    """Self-attention over frames that knows their positions."""

    def __init__(self, channels: int, heads: int, max_frames: int) -> None:
        super().__init__(query_dim=channels, heads=heads, dim_head=channels // heads)
        make_plain(self)
        self.pos_encoder = FramePosition(channels, max_frames)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(b, frames, channels) -> the same."""
        return super().forward(self.pos_encoder(tokens))


class TemporalBlock(nn.Module):
    """Two attentions over frames and a feed-forward layer, each with norm and residual."""

    def __init__(self, channels: int, heads: int, max_frames: int, ff_mult: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            FrameAttention(channels, heads, max_frames) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.ff = FeedForward(channels, mult=ff_mult, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(b, frames, channels) -> the same."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            tokens = tokens + attention(norm(tokens))
        return tokens + self.ff(self.ff_norm(tokens))


class TemporalTransformer(nn.Module):
    """Norm per frame, projection in, attention over frames, projection out, residual."""

    def __init__(
        self, channels: int, heads: int, groups: int, max_frames: int, layers: int, ff_mult: int
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(channels, heads, max_frames, ff_mult) for _ in range(layers)
        )
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, hidden: torch.Tensor, num_frames: int) -> torch.Tensor:
        """((b frames), c, h, w) -> the same, channels last in memory."""
        n, c, h, w = hidden.shape
        tokens = self.norm(hidden).permute(0, 2, 3, 1).reshape(-1, num_frames, h * w, c)
        tokens = self.proj_in(tokens.transpose(1, 2).reshape(-1, num_frames, c))
        for block in self.transformer_blocks:
            tokens = block(tokens)
        tokens = self.proj_out(tokens).reshape(-1, h * w, num_frames, c).transpose(1, 2)
        return hidden + tokens.reshape(n, h, w, c).permute(0, 3, 1, 2)


class MotionModule(nn.Module):
    """One motion module, doing nothing until trained.

    Args:
        channels: width of the hidden state.
        heads: attention heads; divides `channels`.
        groups: groups of the norm.
        max_frames: longest window.
        layers: transformer blocks, each with two attentions over frames.
        ff_mult: inner width of the feed-forward layers over `channels`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        groups: int,
        max_frames: int,
        layers: int = 1,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(
            channels, heads, groups, max_frames, layers, ff_mult
        )
        nn.init.zeros_(self.temporal_transformer.proj_out.weight)
        nn.init.zeros_(self.temporal_transformer.proj_out.bias)

    def forward(self, hidden: torch.Tensor, num_frames: int) -> torch.Tensor:
        """((b frames), c, h, w) -> the same."""
        return self.temporal_transformer(hidden, num_frames)
