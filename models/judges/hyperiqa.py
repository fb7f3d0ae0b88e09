"""HyperIQA: how good an image looks, 0 to 100 (Su et al., CVPR 2020).

A ResNet-50 describes the image; from its last feature map small networks make the weights
of the quality predictor, which thus differs for each image. Weights:
`koniq_pretrained.pkl` (a plain state dict), by `load_hyperiqa`.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.files.state_dict import load_weights, read_state_dict

SIZE = 224
"""Height and width of the network's input."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TARGET = 224
"""Length of the vector that the predictor gets."""
_HIDDEN = (112, 56, 28, 14)
_GRID = 7
_HYPER = 112
"""Channels of the feature map that the predictor's weights are made from."""
_LOCAL = 16
"""Features per early stage in the predictor's input."""


class Bottleneck(nn.Module):
    """ResNet's 1x1, 3x3, 1x1 block with four times the channels at its end."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        if stride != 1 or channels_in != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(b, channels_in, h, w) -> (b, 4 width, h / stride, w / stride)."""
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


def _layer(channels_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(channels_in, width, stride), *rest)


def _local(channels: int, reduced: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False), nn.AvgPool2d(7, 7))


class Backbone(nn.Module):
    """ResNet-50 whose every stage adds to the vector that is judged."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _layer(64, 64, 3, 1)
        self.layer2 = _layer(256, 128, 4, 2)
        self.layer3 = _layer(512, 256, 6, 2)
        self.layer4 = _layer(1024, 512, 3, 2)
        self.lda1_pool, self.lda1_fc = _local(256, 16), nn.Linear(16 * 64, _LOCAL)
        self.lda2_pool, self.lda2_fc = _local(512, 32), nn.Linear(32 * 16, _LOCAL)
        self.lda3_pool, self.lda3_fc = _local(1024, 64), nn.Linear(64 * 4, _LOCAL)
        self.lda4_pool = nn.AvgPool2d(7, 7)
        self.lda4_fc = nn.Linear(2048, _TARGET - 3 * _LOCAL)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(b, 3, 224, 224), normalised -> (b, 2048, 7, 7) and (b, 224)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        parts = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            pooled = getattr(self, f"lda{stage}_pool")(x)
            parts.append(getattr(self, f"lda{stage}_fc")(pooled.flatten(1)))
        return x, torch.cat(parts, dim=1)


class HyperIQA(nn.Module):
    """Quality of images; the names of its parts are those of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        self.res = Backbone()
        self.conv1 = nn.Sequential(
            nn.Conv2d(2048, 1024, 1),
            nn.ReLU(),
            nn.Conv2d(1024, 512, 1),
            nn.ReLU(),
            nn.Conv2d(512, _HYPER, 1),
            nn.ReLU(),
        )
        before = _TARGET
        for index, width in enumerate(_HIDDEN, start=1):
            channels = before * width // _GRID**2
            self.add_module(f"fc{index}w_conv", nn.Conv2d(_HYPER, channels, 3, padding=1))
            self.add_module(f"fc{index}b_fc", nn.Linear(_HYPER, width))
            before = width
        self.fc5w_fc = nn.Linear(_HYPER, before)
        self.fc5b_fc = nn.Linear(_HYPER, 1)
        self.requires_grad_(False).eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, 224, 224), normalised as ImageNet's -> (b,), about 0 to 100."""
        features, vector = self.res(images)
        hyper = self.conv1(features)
        pooled = hyper.mean((2, 3))
        for index, width in enumerate(_HIDDEN, start=1):
            weight = getattr(self, f"fc{index}w_conv")(hyper).reshape(-1, width, vector.shape[1])
            bias = getattr(self, f"fc{index}b_fc")(pooled)
            vector = torch.sigmoid(torch.einsum("bow,bw->bo", weight, vector) + bias)
        return (self.fc5w_fc(pooled) * vector).sum(1) + self.fc5b_fc(pooled)[:, 0]

    @torch.no_grad()
    def score(self, frames: np.ndarray) -> np.ndarray:
        """Quality of uint8 RGB frames (n, h, w, 3) -> float64 (n,)."""
        device = self.fc5w_fc.weight.device
        images = torch.from_numpy(frames).to(device).movedim(-1, 1).float() / 255
        if images.shape[-2:] != (SIZE, SIZE):
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
        mean = torch.tensor(_MEAN, device=device).view(3, 1, 1)
        std = torch.tensor(_STD, device=device).view(3, 1, 1)
        return self((images - mean) / std).double().cpu().numpy()


def load_hyperiqa(path: Path) -> HyperIQA:
    """The network of `koniq_pretrained.pkl`, in eval mode.

    Raises:
        ModelFileError: the file is not koniq_pretrained.pkl.
    """
    network = HyperIQA()
    load_weights(network, read_state_dict(path), path)
    return network.requires_grad_(False).eval()
