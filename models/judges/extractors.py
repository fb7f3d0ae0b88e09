"""The features that FID and FVD compare.

The official extractors are TorchScript files (see `tasks.weights.store`: inception-2015, i3d).
Without a file a seeded network of the same kind stands in; its numbers can be compared
only with each other, and their label says so.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.files.errors import ModelFileError
from models.judges.script_process import NotTensor, ScriptProcess

VIDEO_SIZE = 224
"""Height and width of I3D's input."""


class FeatureExtractor(Protocol):
    """Turns images or videos into feature vectors."""

    name: str
    """Short name, as in file names and tables."""
    label: str
    """Label of every number made with it."""
    dim: int
    """Features per image or video."""

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 RGB (n, h, w, 3), or (n, t, h, w, 3) for videos -> float64 (n, dim)."""
        ...


@torch.no_grad()
def probe(
    call: Callable[[], Any], path: Path, shape: tuple[int | None, ...], expected: str
) -> None:
    """Try a TorchScript file before anything relies on it.

    Args:
        call: calls the network with a tiny batch, as one calls the official file.
        path: the file.
        shape: expected shape of the floating-point result; None for any size.
        expected: description of the expected file.

    Raises:
        ModelFileError: it cannot be called like this, or gives something else.
    """
    try:
        found = call()
    except torch.OutOfMemoryError:
        raise
    except (torch.jit.Error, RuntimeError, TypeError, ValueError) as problem:
        raise ModelFileError(
            f"model file {path} is TorchScript, but cannot be called like {expected}: "
            "give that file"
        ) from problem
    if isinstance(found, torch.Tensor) and not bool(found.isfinite().all()):
        raise ModelFileError(
            f"model file {path} gives values that are not numbers: expected {expected}, fetch it "
            "again"
        )
    if not isinstance(found, torch.Tensor) or not found.is_floating_point():
        kind = found.kind if isinstance(found, NotTensor) else type(found).__name__
        raise ModelFileError(
            f"model file {path} gives {kind} where {expected} gives features: give that file"
        )
    actual = tuple(found.shape)
    wanted = tuple(size if size is not None else "any" for size in shape)
    fits = all(w in (a, "any") for a, w in zip(actual, wanted, strict=False))
    if len(actual) != len(wanted) or not fits:
        raise ModelFileError(
            f"model file {path} gives features of shape {actual} where {expected} gives {wanted}: "
            "give that file"
        )


class SeededNet(nn.Module):
    """Convolutions with fixed random weights; features are channel means and spreads.

    Args:
        dims: 2 for images, 3 for videos.
        seed: of the weights.
        widths: channels of each level, which halves height and width (and time).
    """

    def __init__(self, dims: int, seed: int = 0, widths: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        generator = torch.Generator().manual_seed(seed)
        self.levels = nn.ModuleList()
        before = 3
        for width in widths:
            level = conv(before, width, 3, stride=2, padding=1, bias=False)
            std = (2 / level.weight[0].numel()) ** 0.5
            with torch.no_grad():
                level.weight.copy_(torch.randn(level.weight.shape, generator=generator) * std)
            self.levels.append(level)
            before = width
        self.dim = 2 * sum(widths)
        self.requires_grad_(False).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, ...) in [-1, 1] -> (n, dim)."""
        features = []
        for level in self.levels:
            x = F.relu(level(x))
            flat = x.flatten(2)
            features += [flat.mean(2), flat.std(2)]
        return torch.cat(features, dim=1)


class Batched:
    """Feeds a network piece by piece and collects float64 on the CPU."""

    def __init__(self, name: str, label: str, dim: int, device: torch.device, batch: int) -> None:
        self.name, self.label, self.dim = name, label, dim
        self.device, self.batch = device, batch

    dims: int

    def features(self, part: torch.Tensor) -> torch.Tensor:
        """uint8, channels second, on the device -> (n, dim)."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        if frames.ndim != self.dims or frames.dtype != np.uint8 or frames.shape[-1] != 3:
            raise ValueError(
                f"{self.name} takes uint8 RGB with {self.dims} axes, got {frames.dtype} "
                f"{frames.shape}"
            )
        parts = [np.empty((0, self.dim))]
        for start in range(0, len(frames), self.batch):
            part = torch.from_numpy(np.ascontiguousarray(frames[start : start + self.batch]))
            features = self.features(part.to(self.device).movedim(-1, 1))
            parts.append(features.double().cpu().numpy())
        return np.concatenate(parts)


class Inception(Batched):
    """The detector of `inception-2015-12-05.pt`: images as they are, it resizes by itself."""

    dims = 4

    def __init__(
        self, path: Path, device: torch.device, batch: int, trusted: Collection[str]
    ) -> None:
        super().__init__("inception-2015", "inception-2015-12-05", 2048, device, batch)
        self.network = ScriptProcess(path, device, trusted)
        images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=device)
        probe(lambda: self.features(images), path, (2, self.dim), "inception-2015-12-05.pt")

    def features(self, part: torch.Tensor) -> torch.Tensor:
        return self.network(part, return_features=True)


class SeededInception(Batched):
    """Stands in if Inception's file is not available."""

    dims = 4

    def __init__(self, device: torch.device, batch: int, seed: int = 0) -> None:
        self.network = SeededNet(2, seed).to(device)
        label = "seeded-inception (not the official weights)"
        super().__init__("seeded-inception", label, self.network.dim, device, batch)

    def features(self, part: torch.Tensor) -> torch.Tensor:
        return self.network(part.float() / 127.5 - 1)


class I3D(Batched):
    """The detector of `i3d_torchscript.pt`, fed at 224 x 224 in [-1, 1]."""

    dims = 5

    def __init__(
        self, path: Path, device: torch.device, batch: int, trusted: Collection[str]
    ) -> None:
        super().__init__("i3d", "i3d-kinetics-400", 400, device, batch)
        self.network = ScriptProcess(path, device, trusted)
        video = torch.zeros(1, 3, 16, 32, 32, dtype=torch.uint8, device=device)
        probe(lambda: self.features(video), path, (1, self.dim), "i3d_torchscript.pt")

    def features(self, part: torch.Tensor) -> torch.Tensor:
        n, _, t = part.shape[:3]
        images = part.transpose(1, 2).flatten(0, 1).float() / 127.5 - 1
        size = (VIDEO_SIZE, VIDEO_SIZE)
        resized = F.interpolate(images, size, mode="bilinear", align_corners=False)
        video = resized.clamp(-1, 1).unflatten(0, (n, t)).transpose(1, 2).contiguous()
        return self.network(video, rescale=False, resize=False, return_features=True)


class SeededI3D(Batched):
    """Stands in if I3D's file is not available."""

    dims = 5

    def __init__(self, device: torch.device, batch: int, seed: int = 0) -> None:
        self.network = SeededNet(3, seed).to(device)
        label = "seeded-i3d (not the official weights)"
        super().__init__("seeded-i3d", label, self.network.dim, device, batch)

    def features(self, part: torch.Tensor) -> torch.Tensor:
        return self.network(part.float() / 127.5 - 1)


def image_extractor(
    path: Path | None,
    device: torch.device | str = "cpu",
    batch: int = 32,
    trusted: Collection[str] = (),
) -> FeatureExtractor:
    """Inception from a TorchScript file, or the seeded stand-in when `path` is None.

    Args:
        path: the file.
        device: where it runs.
        batch: inputs at a time.
        trusted: sha256 of the TorchScript files that may run.

    Raises:
        ModelFileError: the file is not trusted, cannot be used, or is another network.
    """
    where = torch.device(device)
    return SeededInception(where, batch) if path is None else Inception(path, where, batch, trusted)


def video_extractor(
    path: Path | None,
    device: torch.device | str = "cpu",
    batch: int = 4,
    trusted: Collection[str] = (),
) -> FeatureExtractor:
    """I3D from a TorchScript file, or the seeded stand-in when `path` is None.

    Args:
        path: the file.
        device: where it runs.
        batch: inputs at a time.
        trusted: sha256 of the TorchScript files that may run.

    Raises:
        ModelFileError: the file is not trusted, cannot be used, or is another network.
    """
    where = torch.device(device)
    return SeededI3D(where, batch) if path is None else I3D(path, where, batch, trusted)
