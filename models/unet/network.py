"""LatentSync's U-Net (arXiv 2412.09262, section 3): denoises the latents of a face window.

Stable Diffusion 1.5's U-Net over windows of frames: cross-attention to each frame's audio
tokens, norms over the whole window, motion modules in stage 2. The input channels are
the noisy latents, one mask (1 where the picture is kept), the latents of the masked
picture and those of a reference window; for SyncDiff's variant also those of an earlier frame, the
pose, through a bottleneck. The defaults are the full-size network of the paper; the tiny recipe is
the same class, smaller, with `residual`.
"""

from collections.abc import Sequence
from typing import TypedDict

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from torch import nn
from torch.nn import functional as F

from models.unet.blocks import BlockConfig, ClipGroupNorm, DownLevel, LevelConfig, MidLevel, UpLevel
from models.unet.deep import DeepFeatures
from models.unet.pose import PoseBottleneck, add_inputs, convolve_apart, pose_channels

ATTENTIONS = ("full", "cross", "none")


class UNetOptions(TypedDict, total=False):
    """Arguments of `LipSyncUNet`; those left out have their defaults."""

    in_channels: int
    out_channels: int
    block_out_channels: Sequence[int]
    layers_per_block: int
    attention: Sequence[str]
    cross_attention_dim: int
    attention_heads: int
    norm_num_groups: int
    norm_eps: float
    motion_resolutions: Sequence[int]
    motion_decoder_only: bool
    motion_mid_block: bool
    motion_heads: int
    motion_norm_groups: int
    motion_layers: int
    motion_max_frames: int
    ff_mult: int
    residual: bool
    pose: str
    pose_width: int


class LipSyncUNet(ModelMixin, ConfigMixin):
    """U-Net over windows of frames, conditioned on audio.

    Args:
        in_channels: noisy + 1 mask + masked + reference latents: 3 * out_channels + 1; with a pose,
            the channels that its bottleneck gives as well.
        out_channels: latent channels of the prediction.
        block_out_channels: width at each resolution, the highest first.
        layers_per_block: ResNet blocks per resolution on the way down (one more going up).
        attention: per resolution, "full" (self and cross), "cross" or "none".
        cross_attention_dim: width of the audio tokens.
        attention_heads: heads of the attentions per frame.
        norm_num_groups: groups of the norms, except the motion modules'.
        norm_eps: epsilon of the clip-wide norms.
        motion_resolutions: resolutions that get motion modules, as divisors of the
            latents' own (1, 2, 4, 8); empty for stage 1.
        motion_decoder_only: motion modules only on the way up (`stage2_efficient`).
        motion_mid_block: also a motion module at the lowest resolution.
        motion_heads: heads of the attentions over frames.
        motion_norm_groups: groups of the motion modules' norms.
        motion_layers: transformer blocks per motion module.
        motion_max_frames: longest window with motion modules.
        ff_mult: inner width of the feed-forward layers over their outer one.
        residual: add the output to a first guess, the masked picture's latents where the
            mask keeps and the reference's where it repaints. The output and the noisy
            latents' input weights start at zero, so that an untrained network that
            predicts the sample itself returns just that guess.
        pose: what of an earlier frame's latents, the last input, passes the bottleneck, see
            `models.unet.pose.POSES`. Its input weights start at zero: a network that starts from
            one without a pose returns what that returns, until it is trained.
        pose_width: width of the bottleneck, for "channel" and "vector".

    Raises:
        ValueError: the values contradict each other.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("ResnetBlock", "SpatialTransformer", "MotionModule")

    @register_to_config
    def __init__(
        self,
        in_channels: int = 13,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention: Sequence[str] = ("full", "full", "full", "none"),
        cross_attention_dim: int = 384,
        attention_heads: int = 8,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        motion_resolutions: Sequence[int] = (1, 2, 4, 8),
        motion_decoder_only: bool = False,
        motion_mid_block: bool = False,
        motion_heads: int = 8,
        motion_norm_groups: int = 32,
        motion_layers: int = 1,
        motion_max_frames: int = 24,
        ff_mult: int = 4,
        residual: bool = False,
        pose: str = "none",
        pose_width: int = 0,
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        posed = pose_channels(pose, pose_width, out_channels)
        _check(widths, list(attention), in_channels, out_channels, residual, posed)
        config = BlockConfig(
            time_channels=4 * widths[0],
            audio_width=cross_attention_dim,
            heads=attention_heads,
            groups=norm_num_groups,
            eps=norm_eps,
            motion_heads=motion_heads,
            motion_groups=motion_norm_groups,
            motion_layers=motion_layers,
            motion_max_frames=motion_max_frames,
            ff_mult=ff_mult,
        )
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], config.time_channels)
        self.conv_in = nn.Conv2d(in_channels - posed, widths[0], 3, padding=1)
        last = len(widths) - 1
        moving = [2**level in motion_resolutions for level in range(len(widths))]
        self.down_blocks = nn.ModuleList(
            DownLevel(
                LevelConfig(
                    (widths[max(level - 1, 0)],) + (width,) * (layers_per_block - 1),
                    width,
                    attention[level],
                    layers_per_block,
                    moving[level] and not motion_decoder_only,
                ),
                config,
                downsample=level < last,
            )
            for level, width in enumerate(widths)
        )
        self.mid_block = MidLevel(
            LevelConfig((widths[-1],) * 2, widths[-1], "full", 1, motion_mid_block), config
        )
        self.up_blocks = nn.ModuleList(
            UpLevel(
                LevelConfig(
                    _up_widths(widths, level, layers_per_block),
                    widths[level],
                    attention[level],
                    layers_per_block + 1,
                    moving[level],
                ),
                config,
                upsample=level > 0,
            )
            for level in reversed(range(len(widths)))
        )
        self.conv_norm_out = ClipGroupNorm(norm_num_groups, widths[0], eps=norm_eps)
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        if residual:
            for parameter in self.conv_out.parameters():
                nn.init.zeros_(parameter)
            nn.init.zeros_(self.conv_in.weight[:, :out_channels])
        # Last, so that all other weights are drawn as without it.
        self.bottleneck = PoseBottleneck(pose, pose_width, out_channels) if posed else None
        if posed:
            add_inputs(self.conv_in, posed)

    @property
    def pose_channels(self) -> int:
        """Input channels that the pose's bottleneck gives; 0 without a pose."""
        return self.bottleneck.channels if self.bottleneck is not None else 0

    def forward(
        self,
        sample: torch.Tensor,
        timesteps: torch.Tensor | int,
        audio: torch.Tensor,
        deep: DeepFeatures | None = None,
    ) -> torch.Tensor:
        """Predict the noise (or the sample, as trained) of a window.

        Args:
            sample: (b, channels, f, h, w), all channels as described above, the pose's latents
                themselves; h and w divisible by 2 per resolution step.
            timesteps: (b,) or one number.
            audio: (b, f, n, cross_attention_dim).
            deep: features of an earlier step, which are used if there are any, or kept for later
                steps; None: neither.

        Returns:
            (b, out_channels, f, h, w).

        Raises:
            ValueError: the shapes do not fit together or to the network.
        """
        self._check_inputs(sample, audio)
        batch, _, frames, height, width = sample.shape
        time = self._time(timesteps, sample)
        tokens = audio.to(sample.dtype).reshape(batch * frames, *audio.shape[2:])
        if self.bottleneck is None:
            flat = _as_frames(sample)
            hidden = self.conv_in(flat)
        else:
            count = self.config.out_channels
            flat, pose = (_as_frames(each) for each in sample.split([3 * count + 1, count], dim=1))
            shown = self.bottleneck(pose, flat[:, count : count + 1])
            hidden = convolve_apart(self.conv_in, flat, shown)
        skips = [hidden]
        *inner, last = self.up_blocks
        if deep is None or deep.kept is None:
            for down in self.down_blocks:
                hidden, more = down(hidden, time, tokens, frames)
                skips += more
            hidden = self.mid_block(hidden, time, tokens, frames)
            for up in inner:
                hidden = up(hidden, skips, time, tokens, frames)
        hidden = last(hidden, skips, time, tokens, frames, deep)
        hidden = self.conv_out(F.silu(self.conv_norm_out(hidden, frames)))
        if self.config.residual:
            hidden = hidden + self._first_guess(flat)
        return hidden.reshape(batch, frames, -1, height, width).transpose(1, 2)

    def _time(self, timesteps: torch.Tensor | int, sample: torch.Tensor) -> torch.Tensor:
        """(b, time_channels)."""
        steps = torch.as_tensor(timesteps, device=sample.device).reshape(-1)
        steps = steps.expand(sample.shape[0]) if steps.numel() == 1 else steps
        return self.time_embedding(self.time_proj(steps).to(sample.dtype))

    def _first_guess(self, flat: torch.Tensor) -> torch.Tensor:
        """Masked latents where the mask keeps, reference latents where it repaints."""
        count = self.config.out_channels
        _, keep, masked, reference = flat.split([count, 1, count, count], dim=1)
        return keep * masked + (1 - keep) * reference

    def _check_inputs(self, sample: torch.Tensor, audio: torch.Tensor) -> None:
        step = 2 ** (len(self.config.block_out_channels) - 1)
        expected = self.config.in_channels
        if self.bottleneck is not None:
            expected = 4 * self.config.out_channels + 1
        if sample.ndim != 5 or sample.shape[1] != expected:
            raise ValueError(f"sample must be (b, {expected}, f, h, w), got {tuple(sample.shape)}")
        if sample.shape[3] % step or sample.shape[4] % step:
            size = f"{sample.shape[3]}x{sample.shape[4]}"
            raise ValueError(f"the latents' height and width must divide by {step}, got {size}")
        wanted = (sample.shape[0], sample.shape[2])
        if audio.ndim != 4 or audio.shape[:2] != wanted:
            raise ValueError(
                f"audio must be (b, f, n, width) with b, f = {wanted}, got {tuple(audio.shape)}"
            )
        if audio.shape[3] != self.config.cross_attention_dim:
            raise ValueError(
                f"audio tokens must be {self.config.cross_attention_dim} wide, got "
                f"{audio.shape[3]}: the network and the audio encoder do not belong together"
            )


def _as_frames(window: torch.Tensor) -> torch.Tensor:
    """(b, c, f, h, w) -> ((b f), c, h, w) in channels-last memory."""
    batch, channels, frames, height, width = window.shape
    flat = window.permute(0, 2, 3, 4, 1).reshape(batch * frames, height, width, channels)
    return flat.permute(0, 3, 1, 2)


def _up_widths(widths: list[int], level: int, layers_per_block: int) -> tuple[int, ...]:
    """Input width of each ResNet block going up: what comes from below plus its skip."""
    below = widths[min(level + 1, len(widths) - 1)]
    own, above = widths[level], widths[max(level - 1, 0)]
    hidden = [below] + [own] * layers_per_block
    skips = [own] * layers_per_block + [above]
    return tuple(sum(pair) for pair in zip(hidden, skips, strict=True))


def _check(
    widths: list[int],
    attention: list[str],
    in_channels: int,
    out_channels: int,
    residual: bool,
    posed: int,
) -> None:
    if len(attention) != len(widths):
        raise ValueError(f"attention needs one entry per resolution ({len(widths)}): {attention}")
    unknown = [name for name in attention if name not in ATTENTIONS]
    if unknown:
        raise ValueError(f"unknown attention {unknown[0]!r}, expected one of {ATTENTIONS}")
    expected = 3 * out_channels + 1 + posed
    if (residual or posed) and in_channels != expected:
        pose = f" + {posed} of the pose" if posed else ""
        raise ValueError(
            f"{'a pose' if posed else 'residual'} needs in_channels = 3 * out_channels + 1{pose} = "
            f"{expected}, got {in_channels}"
        )
