"""Whole clips through SyncNet, several times as fast as window by window and to the same digits.

Windows share frames but hardly a product, so what is saved is made cheaper: pictures are
multiplied in whole numbers where the processor can, 3x3 convolutions take fewer
multiplications, and large maps are passed over as seldom as possible.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.audio.mel import Audio
from models.audio.mfcc import mfcc
from models.syncnet.pixel_convolution import PixelConvolution, has_matrix_units
from models.syncnet.syncnet_v2 import (
    SAMPLES_PER_FRAME,
    SIZE,
    STEPS_PER_FRAME,
    WINDOW_FRAMES,
    WINDOW_STEPS,
    FoldedConv,
    SyncNet,
)
from models.syncnet.winograd import WinogradConvolution

Step = Callable[[torch.Tensor], torch.Tensor]

WINOGRAD_CHANNELS = 64
"""Channels from which on fewer multiplications pay for moving tiles about."""


class ClipFeatures:
    """Features of every 5-frame window of clips.

    Args:
        network: in eval mode; its device is used, its weights as they are now.
        batch: windows at a time; memory grows with it, not with the clip.
        whole_numbers: multiply pictures in whole numbers where the processor has units for that.
    """

    def __init__(self, network: SyncNet, batch: int = 64, whole_numbers: bool = True) -> None:
        self._network, self._batch = network, batch
        self._device = next(network.parameters()).device
        few = self._device.type == "cpu"
        whole = few and whole_numbers and has_matrix_units()
        # On processors so few windows that the maps, 4.5 MB each after the first convolution over
        # lips, stay in the cache and are not fetched from the system anew.
        few_at_once, first = (8, 2) if few else (batch, batch)
        self._see = _Encoder(network.netcnnlip, few_at_once, first, whole)
        self._hear = _Encoder(network.netcnnaud, few_at_once)

    @torch.no_grad()
    def __call__(self, frames: torch.Tensor, wave: Audio) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of a clip, one per frame.

        Args:
            frames: (t, 3, h, w) RGB, uint8 or floating point in 0..255, at 25 fps. What is no
                whole number, also after resizing, is rounded: the published program reads
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
            windows = part.flatten(0, 1).unfold(0, 3 * WINDOW_FRAMES, 3).permute(0, 3, 1, 2)
            lips.append(self._network.netfclip(self._see(windows)).cpu())
            sound.append(self._network.netfcaud(self._hear(sounds[start:stop, None])).cpu())
        return torch.cat(lips), torch.cat(sound)


def _pixels(frames: torch.Tensor) -> torch.Tensor:
    """(t, 3, h, w) -> (t, 3, 224, 224) uint8."""
    if frames.shape[-2:] != (SIZE, SIZE):
        frames = F.interpolate(frames.float(), (SIZE, SIZE), mode="bilinear", antialias=True)
    return frames if frames.dtype == torch.uint8 else frames.round().clamp(0, 255).byte()


class _Encoder:
    """One encoder's convolutions, made ready for many windows.

    Norms are folded into the weights, and ReLU comes after the pooling, which it commutes with.
    The last convolution covers its whole map, so it is a matrix product.

    Args:
        layers: convolutions, each followed by its norm, ReLU and perhaps a pooling; in eval mode.
        batch: windows at a time.
        first: windows at a time through the first convolution and its pooling. None: as `batch`.
        whole: the first convolution is done in whole numbers.
    """

    def __init__(
        self, layers: nn.Sequential, batch: int, first: int | None = None, whole: bool = False
    ) -> None:
        self._batch, self._first_batch = batch, first or batch
        self._steps: list[tuple[Step, list[nn.Module]]] = []
        conv: Any = None
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                conv = layer
            elif isinstance(layer, nn.BatchNorm2d):
                weight, bias = _with_norm(conv, layer)
                self._steps.append((_convolution(conv, weight, bias, whole), []))
                whole = False
            elif isinstance(layer, nn.MaxPool2d):
                self._steps[-1][1].append(layer)
        self._steps.pop()
        self._last = (weight.flatten(1), bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c')."""
        maps = torch.cat([self._maps(part) for part in x.split(self._batch)])
        return F.relu_(F.linear(maps, *self._last))

    def _maps(self, x: torch.Tensor) -> torch.Tensor:
        """(b, c, h, w) -> (b, c' * h' * w'), what the last convolution covers."""
        first, *steps = self._steps
        x = torch.cat([_run(first, part) for part in x.split(self._first_batch)])
        for step in steps:
            x = _run(step, x)
        return x.flatten(1)


def _run(step: tuple[Step, list[nn.Module]], x: torch.Tensor) -> torch.Tensor:
    convolution, pools = step
    x = convolution(x.contiguous(memory_format=torch.channels_last))
    for pool in pools:
        x = pool(x)
    return F.relu_(x)


def _with_norm(conv: Any, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (c', c, h, w) and bias of a convolution with its norm in them."""
    weight = conv.weight
    if isinstance(conv, FoldedConv) and conv.kernel_size[0] == WINDOW_FRAMES:
        # The network takes the planes of a window as BGR x time, `ClipFeatures` has frames of RGB.
        weight = weight.flip(1).transpose(1, 2)
    if weight.ndim == 5:
        weight = weight.flatten(1, 2)
    statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    weight, bias = fuse_conv_bn_weights(weight, conv.bias, *statistics)
    return weight.detach(), bias.detach()


def _convolution(conv: Any, weight: torch.Tensor, bias: torch.Tensor, whole: bool) -> Step:
    """The fastest way known to do one convolution."""
    stride, padding = conv.stride[-2:], conv.padding[-2:]
    if whole:
        return PixelConvolution(weight, bias, stride)
    if weight.device.type == "cpu":
        few = len(weight[0]) < WINOGRAD_CHANNELS
        if not few and WinogradConvolution.takes(weight, stride[0]):
            return WinogradConvolution(weight, bias, stride[0], padding[0])
    weight = weight.contiguous(memory_format=torch.channels_last)
    return lambda x: F.conv2d(x.to(weight.dtype), weight, bias, stride, padding)
