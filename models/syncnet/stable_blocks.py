"""The blocks of StableSyncNet (LatentSync, arXiv 2412.09262, section 3.3).

Names of the parameters are those of the published checkpoint, so that it loads as it is.
"""

from collections.abc import Sequence

import torch
from diffusers.models.attention import Attention, FeedForward
from torch import nn
from torch.nn import functional as F

Factor = int | Sequence[int]
"""Stride of a stage: one number, or (height, width)."""

_EPS = 1e-6


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that stays exact on 1x1 feature maps.

    A 1x1 map that comes out of a convolution counts as channels-last, and for that layout
    PyTorch's CPU kernel takes the variance as E[x^2] - E[x]^2: with the two or so values per
    group that are left at the end of the encoder, rounding then costs four digits.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[-2:] == (1, 1):
            x = x.clone(memory_format=torch.contiguous_format)
        return super().forward(x)


def _padding(stride: tuple[int, int]) -> tuple[int, int, int, int]:
    """Padding left, right, top, bottom: after the image if it shrinks, otherwise around it."""
    height = (1, 1) if stride[0] == 1 else (0, 1)
    width = (1, 1) if stride[1] == 1 else (0, 1)
    return (*width, *height)


class ResnetBlock(nn.Module):
    """Pre-norm residual block, then a strided convolution unless the factor is 1."""

    def __init__(
        self, channels_in: int, channels_out: int, factor: Factor, groups: int, dropout: float
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, channels_in, eps=_EPS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = GroupNorm(groups, channels_out, eps=_EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1)
        stride = (factor, factor) if isinstance(factor, int) else (int(factor[0]), int(factor[1]))
        self.pad = _padding(stride)
        if stride != (1, 1):
            self.downsample_conv = nn.Conv2d(channels_out, channels_out, 3, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, channels_in, h, w) -> (b, channels_out, h', w')."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        x = (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x) + hidden
        if hasattr(self, "downsample_conv"):
            x = self.downsample_conv(F.pad(x, self.pad))
        return x


class AttentionBlock(nn.Module):
    """Self-attention over the positions of a feature map, with a GEGLU feed-forward."""

    def __init__(self, channels: int, groups: int, dropout: float, heads: int = 8) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, channels, eps=_EPS)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, dropout=dropout, activation_fn="geglu")
        self.conv_in = nn.Conv2d(channels, channels, 1)
        self.conv_out = nn.Conv2d(channels, channels, 1)
        self.attn = Attention(
            channels, heads=heads, dim_head=channels // heads, dropout=dropout, bias=True
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c, h, w)."""
        hidden = self.conv_in(self.norm1(x)).flatten(2).transpose(1, 2)
        hidden = self.attn(self.norm2(hidden)) + hidden
        hidden = self.ff(self.norm3(hidden)) + hidden
        return self.conv_out(hidden.transpose(1, 2).unflatten(2, x.shape[2:])) + x


class DownEncoder(nn.Module):
    """A stack of `ResnetBlock`s, with attention after those that ask for it.

    Args:
        in_channels: channels of the input.
        block_out_channels: width of each stage.
        downsample_factors: stride of each stage.
        attn_blocks: 1 for each stage that ends in attention.
        norm_num_groups: groups of every GroupNorm.
        dropout: in every block.
        gradient_checkpointing: recompute blocks in the backward pass to save memory.
    """

    def __init__(
        self,
        in_channels: int,
        block_out_channels: Sequence[int],
        downsample_factors: Sequence[Factor],
        attn_blocks: Sequence[int],
        norm_num_groups: int = 32,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not len(block_out_channels) == len(downsample_factors) == len(attn_blocks):
            raise ValueError(
                "block_out_channels, downsample_factors and attn_blocks must be equally long, got "
                f"{len(block_out_channels)}, {len(downsample_factors)} and {len(attn_blocks)}"
            )
        self.gradient_checkpointing = gradient_checkpointing
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        before = block_out_channels[0]
        stages = zip(block_out_channels, downsample_factors, attn_blocks, strict=True)
        for width, factor, attention in stages:
            self.down_blocks.append(ResnetBlock(before, width, factor, norm_num_groups, dropout))
            if attention:
                self.down_blocks.append(AttentionBlock(width, norm_num_groups, dropout))
            before = width
        self.norm_out = GroupNorm(norm_num_groups, before, eps=_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, in_channels, h, w) -> (b, c, h', w'), non-negative."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return F.relu(self.norm_out(x))
