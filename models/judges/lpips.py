"""LPIPS: how different two images look (Zhang et al., CVPR 2018), as loss and as metric.

Three ways to the same number: NVIDIA's TorchScript `vgg16.pt`, or torchvision's VGG16
with the published linear weights, or, if neither is available, a narrow seeded VGG whose
label says that its numbers are not LPIPS.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from models.files.errors import ModelFileError
from models.files.state_dict import load_weights, read_state_dict
from models.judges.extractors import probe
from models.judges.script_process import ScriptProcess

_WIDTHS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of VGG16's five levels."""
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for images in [-1, 1], as LPIPS rounds them."""
_EPS = 1e-10


class TorchScriptLpips(nn.Module):
    """LPIPS by the official TorchScript file; distances are sums of squared differences.

    Raises:
        ModelFileError: the file cannot be used, or is another network.
    """

    label = "lpips-vgg16"

    def __init__(
        self, path: Path, device: torch.device | str = "cpu", trusted: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.network = ScriptProcess(path, device, trusted)
        images = torch.zeros(2, 3, 64, 64, device=device)
        probe(lambda: self._features(images), path, (2, None), "NVIDIA's vgg16.pt")

    def _features(self, image: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, d), d by the size of the pictures."""
        return self.network((image + 1) * 127.5, resize_images=False, return_lpips=True)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) each, in [-1, 1] -> (n,); differentiable."""
        features = [self._features(image) for image in (first, second)]
        return (features[0] - features[1]).square().flatten(1).sum(1)


STAND_IN = 8
"""How much narrower than VGG16 the seeded stand-in is."""


class VggLpips(nn.Module):
    """LPIPS by a VGG of our own; `divide` narrows it for tests and the seeded stand-in."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, divide: int = 1, label: str = "lpips-vgg16") -> None:
        super().__init__()
        self.label = label
        self.levels = nn.ModuleList()
        before, widths = 3, []
        for width, count in _WIDTHS:
            width //= divide
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            self.levels.append(nn.Sequential(*layers))
            widths.append(width)
        self.linear = nn.ParameterList(nn.Parameter(torch.full((w,), 1 / w)) for w in widths)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def _features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Each level's output, of unit length over its channels."""
        x = (image - self.shift) / self.scale
        outputs = []
        for index, level in enumerate(self.levels):
            x = level(F.max_pool2d(x, 2) if index else x)
            outputs.append(x / (x.square().sum(1, keepdim=True).sqrt() + _EPS))
        return outputs

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) each, in [-1, 1], sides of 16 or more -> (n,); differentiable."""
        both = zip(self._features(first), self._features(second), self.linear, strict=True)
        return torch.stack(
            [
                ((a - b).square() * weight.view(-1, 1, 1)).sum(1).mean((1, 2))
                for a, b, weight in both
            ]
        ).sum(0)


def convert_vgg(
    vgg: Mapping[str, torch.Tensor], linear: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Weights for `VggLpips` from torchvision's VGG16 and the `lpips` package's vgg.pth."""
    converted, position = {}, 0
    for level, (_, count) in enumerate(_WIDTHS):
        for index in range(count):
            for kind in ("weight", "bias"):
                key = f"features.{position}.{kind}"
                if key in vgg:
                    converted[f"levels.{level}.{2 * index}.{kind}"] = vgg[key]
            position += 2
        position += 1
    for level in range(len(_WIDTHS)):
        key = f"lin{level}.model.1.weight"
        if key in linear:
            converted[f"linear.{level}"] = linear[key].flatten()
    return converted


def load_vgg_lpips(vgg_path: Path, linear_path: Path) -> VggLpips:
    """LPIPS from `vgg16-397923af.pth` and `lpips_vgg.pth`.

    Raises:
        ModelFileError: one of the files is of another kind.
    """
    network = VggLpips()
    weights = convert_vgg(read_state_dict(vgg_path), read_state_dict(linear_path))
    if not any(key.startswith("linear.") for key in weights):
        raise ModelFileError(f"model file {linear_path} does not hold LPIPS's linear weights")
    load_weights(network, weights, vgg_path)
    return network.requires_grad_(False).eval()


def perceptual_loss(
    path: Path | None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    trusted: Collection[str] = (),
) -> TorchScriptLpips | VggLpips:
    """LPIPS from `vgg16.pt`, or the seeded stand-in when `path` is None (see its `label`).

    Args:
        path: the file.
        device: where it runs.
        seed: of the stand-in.
        trusted: sha256 of the TorchScript files that may run.

    Raises:
        ModelFileError: the file is not trusted, or cannot be used.
    """
    if path is not None:
        return TorchScriptLpips(path, device, trusted)
    network = VggLpips(divide=STAND_IN, label="seeded-vgg (not LPIPS weights)")
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            noise = torch.randn(module.weight.shape, generator=generator)
            module.weight.copy_(noise * (2 / fan_in) ** 0.5)
            torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return network.to(device)
