"""The parts of LatentSync's U-Net: Stable Diffusion 1.5's blocks, inflated to windows of frames.

Convolutions and attention work per frame; the norms of the ResNet blocks take their
statistics over all frames of the window, which ties the frames together even without
motion modules (this is what diffusers' own UNetMotionModel does differently). Hidden
states are ((b frames), c, h, w) with channels last in memory: a window is then contiguous
and its norm needs no copy. Parameter names are those of the reference checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import Downsample2D
from torch import nn
from torch.nn import functional as F

from models.unet.attention import make_plain
from models.unet.deep import DeepFeatures
from models.unet.motion import MotionModule


@dataclass(frozen=True)
class BlockConfig:
    """Values that all levels of one U-Net share."""

    time_channels: int
    """Width of the time embedding."""
    audio_width: int
    """Width of the audio tokens."""
    heads: int
    """Heads of the attentions per frame."""
    groups: int
    """Groups of the norms."""
    eps: float
    """Epsilon of the ResNet blocks' norms."""
    motion_heads: int
    """Heads of the attentions over frames."""
    motion_groups: int
    """Groups of the motion modules' norms."""
    motion_layers: int
    """Transformer blocks per motion module."""
    motion_max_frames: int
    """Longest window that the motion modules can take."""
    ff_mult: int = 4
    """Inner width of all feed-forward layers over their outer width."""


class ClipGroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics run over all frames of a window (GroupNorm on 5-D)."""

    def forward(self, hidden: torch.Tensor, num_frames: int) -> torch.Tensor:  # type: ignore[override]
        """((b frames), c, h, w) -> the same, channels last in memory."""
        n, c, h, w = hidden.shape
        # With channels last, the frames of a window are stacked like one tall image.
        tall = hidden.permute(0, 2, 3, 1).reshape(n // num_frames, num_frames * h, w, c)
        normed = F.group_norm(
            tall.permute(0, 3, 1, 2), self.num_groups, self.weight, self.bias, self.eps
        )
        return normed.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)


class ResnetBlock(nn.Module):
    """Two convolutions with clip-wide norms, the time embedding added in between."""

    def __init__(self, in_channels: int, out_channels: int, config: BlockConfig) -> None:
        super().__init__()
        self.norm1 = ClipGroupNorm(config.groups, in_channels, eps=config.eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(config.time_channels, out_channels)
        self.norm2 = ClipGroupNorm(config.groups, out_channels, eps=config.eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = (
            nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def forward(self, hidden: torch.Tensor, time: torch.Tensor, num_frames: int) -> torch.Tensor:
        """((b frames), c, h, w) and the time embedding (b, time_channels)."""
        shift = self.time_emb_proj(F.silu(time)).repeat_interleave(num_frames, 0)
        inner = self.conv1(F.silu(self.norm1(hidden, num_frames))) + shift[:, :, None, None]
        inner = self.conv2(F.silu(self.norm2(inner, num_frames)))
        if self.conv_shortcut is not None:
            hidden = self.conv_shortcut(hidden)
        return hidden + inner


class CrossBlock(nn.Module):
    """Cross-attention to the audio tokens and a feed-forward layer, for small networks.

    diffusers' BasicTransformerBlock without its self-attention; the same names.
    """

    def __init__(self, channels: int, config: BlockConfig) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(
            channels, config.audio_width, heads=config.heads, dim_head=channels // config.heads
        )
        make_plain(self.attn2)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, inner_dim=config.ff_mult * channels, activation_fn="geglu")

    def forward(self, tokens: torch.Tensor, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        """(n, positions, channels) and audio (n, m, width)."""
        tokens = tokens + self.attn2(self.norm2(tokens), encoder_hidden_states)
        return tokens + self.ff(self.norm3(tokens))


def full_block(channels: int, config: BlockConfig) -> BasicTransformerBlock:
    """Stable Diffusion's transformer block: self-attention, cross-attention, feed-forward."""
    block = BasicTransformerBlock(
        channels,
        config.heads,
        channels // config.heads,
        cross_attention_dim=config.audio_width,
        ff_inner_dim=config.ff_mult * channels,
    )
    make_plain(block.attn1, block.attn2)
    return block


class SpatialTransformer(nn.Module):
    """Self-attention within each frame, cross-attention to that frame's audio tokens.

    Args:
        channels: width of the hidden state.
        config: the U-Net's shared values.
        self_attention: whether to include self-attention, which costs most at high resolution.
    """

    def __init__(self, channels: int, config: BlockConfig, self_attention: bool = True) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        block = full_block(channels, config) if self_attention else CrossBlock(channels, config)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, hidden: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """((b frames), c, h, w) and tokens ((b frames), n, width)."""
        n, c, h, w = hidden.shape
        tokens = self.proj_in(self.norm(hidden)).permute(0, 2, 3, 1).reshape(n, h * w, c)
        for block in self.transformer_blocks:
            tokens = block(tokens, encoder_hidden_states=audio)
        return hidden + self.proj_out(tokens.reshape(n, h, w, c).permute(0, 3, 1, 2))


class Upsample(nn.Module):
    """Twice the height and width by nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))


@dataclass(frozen=True)
class LevelConfig:
    """The structure of one level of the U-Net."""

    in_channels: tuple[int, ...]
    """Input width of each ResNet block."""
    out_channels: int
    """Output width of all of them."""
    attention: str
    """"full" (self and cross), "cross" or "none"."""
    num_attentions: int
    """How many ResNet blocks, from the first, an attention follows."""
    motion: bool
    """Whether a motion module follows each ResNet block."""


class Level(nn.Module):
    """A row of ResNet blocks, each followed by its attention and its motion module."""

    gradient_checkpointing = False
    # Set by diffusers' ModelMixin together with the above.
    _gradient_checkpointing_func: Callable[..., torch.Tensor]

    def __init__(self, level: LevelConfig, config: BlockConfig) -> None:
        super().__init__()
        width = level.out_channels
        self.resnets = nn.ModuleList(ResnetBlock(n, width, config) for n in level.in_channels)
        count = 0 if level.attention == "none" else level.num_attentions
        self.attentions = nn.ModuleList(
            SpatialTransformer(width, config, level.attention == "full") for _ in range(count)
        )
        self.motion_modules = nn.ModuleList(
            MotionModule(
                width,
                config.motion_heads,
                config.motion_groups,
                config.motion_max_frames,
                config.motion_layers,
                config.ff_mult,
            )
            for _ in range(level.num_attentions if level.motion else 0)
        )

    def _layer(
        self,
        index: int,
        hidden: torch.Tensor,
        time: torch.Tensor,
        audio: torch.Tensor,
        num_frames: int,
    ) -> torch.Tensor:
        hidden = self.resnets[index](hidden, time, num_frames)
        if index < len(self.attentions):
            hidden = self.attentions[index](hidden, audio)
        if index < len(self.motion_modules):
            hidden = self.motion_modules[index](hidden, num_frames)
        return hidden

    def layer(
        self,
        index: int,
        hidden: torch.Tensor,
        time: torch.Tensor,
        audio: torch.Tensor,
        num_frames: int,
    ) -> torch.Tensor:
        """Layer `index` of the level; recomputed in backward under gradient checkpointing."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(
                self._layer, index, hidden, time, audio, num_frames
            )
        return self._layer(index, hidden, time, audio, num_frames)


class DownLevel(Level):
    """One resolution on the way down; hands on every intermediate state as a skip."""

    def __init__(self, level: LevelConfig, config: BlockConfig, downsample: bool) -> None:
        super().__init__(level, config)
        width = level.out_channels
        self.downsamplers = nn.ModuleList(
            [Downsample2D(width, use_conv=True, padding=1, name="op")] if downsample else []
        )

    def forward(
        self, hidden: torch.Tensor, time: torch.Tensor, audio: torch.Tensor, num_frames: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        skips = []
        for index in range(len(self.resnets)):
            hidden = self.layer(index, hidden, time, audio, num_frames)
            skips.append(hidden)
        for downsampler in self.downsamplers:
            hidden = downsampler(hidden)
            skips.append(hidden)
        return hidden, skips


class MidLevel(Level):
    """The lowest resolution: a ResNet block, then pairs of attention and ResNet block."""

    def forward(
        self, hidden: torch.Tensor, time: torch.Tensor, audio: torch.Tensor, num_frames: int
    ) -> torch.Tensor:
        for index in range(len(self.resnets)):
            hidden = self.layer(index, hidden, time, audio, num_frames)
        return hidden


class UpLevel(Level):
    """One resolution on the way up; joins the skips of the way down, the last one first."""

    def __init__(self, level: LevelConfig, config: BlockConfig, upsample: bool) -> None:
        super().__init__(level, config)
        self.upsamplers = nn.ModuleList([Upsample(level.out_channels)] if upsample else [])

    def forward(
        self,
        hidden: torch.Tensor,
        skips: list[torch.Tensor],
        time: torch.Tensor,
        audio: torch.Tensor,
        num_frames: int,
        deep: DeepFeatures | None = None,
    ) -> torch.Tensor:
        count = len(self.resnets)
        # With features of an earlier step only the last layer is left.
        again = deep is not None and deep.kept is not None
        for index in range(count - 1 if again else 0, count):
            if deep is not None and index == count - 1:
                deep.kept = hidden = hidden if deep.kept is None else deep.kept
            hidden = torch.cat([hidden, skips.pop()], dim=1)
            hidden = self.layer(index, hidden, time, audio, num_frames)
        for upsampler in self.upsamplers:
            hidden = upsampler(hidden)
        return hidden
