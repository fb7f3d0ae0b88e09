"""How many frames per second a GPU repaints: `python -m benchmarks.models --denoise`.

Whole windows go through `LatentSync.generate`: encode, 20 steps of the U-Net with guidance
(two passes at once), decode. Weights are random, which changes no time. The work is counted
by torch's own counter, so the share of the card's peak shows what is left to gain. Products
with a weight or a convolution are counted, and attention where the device has a fused one.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import peak_bytes
from models.latentsync.config import LatentSyncConfig
from models.latentsync.model import LatentSync
from models.latentsync.sampling import bf16_pays

H100_TFLOPS = 989.0
"""Dense bf16 peak of H100 and H200 (SXM), as NVIDIA states it."""
FULL = (LatentSyncConfig(resolution=256), LatentSyncConfig(resolution=512))
_UNET = {
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "attention": ["full", "none"],
    "attention_heads": 2,
    "norm_num_groups": 8,
    "motion_resolutions": [2],
    "motion_heads": 2,
    "motion_norm_groups": 8,
}
_VAE = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1}
SMALL = tuple(
    LatentSyncConfig(
        resolution=side,
        num_frames=8,
        audio="mel",
        unet=_UNET,
        autoencoder={"kind": "kl", **_VAE},
    )
    for side in (64, 128)
)
"""For a processor: the same kind of network, narrow, on short windows of small pictures."""


@dataclass(frozen=True)
class Speed:
    """What repainting one window takes."""

    resolution: int
    frames: int
    """In the window. Neighbouring windows of lip-sync share four of them."""
    steps: int
    bf16: bool
    seconds: float
    """Seconds of the fastest round."""
    peak_bytes: int
    """Peak memory: of the tensors on a GPU, of the process on a processor."""
    flops: int
    """Counted, of one window."""

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.seconds

    def share(self, peak_tflops: float) -> float:
        """Of the given peak."""
        return self.flops / self.seconds / (peak_tflops * 1e12)


def measure(
    config: LatentSyncConfig,
    device: torch.device,
    *,
    steps: int = 20,
    guidance: float = 1.5,
    rounds: int = 3,
    bf16: bool | None = None,
) -> Speed:
    """Repaint a window of random pictures `rounds` times, and once before to count the work."""
    torch.manual_seed(0)
    model = LatentSync(config).to(device).channels_last().eval()
    shape = (1, config.num_frames, 3, config.resolution, config.resolution)
    faces = torch.rand(shape, device=device) * 2 - 1
    encoder = model.audio_encoder
    tokens = torch.randn(
        1, config.num_frames, encoder.tokens_per_frame, encoder.width, device=device
    )
    lower = bf16_pays(device) if bf16 is None else bf16
    on_gpu = device.type == "cuda"

    def paint() -> float:
        begin = time.perf_counter()
        model.generate(faces, faces, tokens, steps=steps, guidance=guidance, bf16=lower)
        if on_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    with FlopCounterMode(display=False) as counter:
        paint()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = min(paint() for _ in range(rounds))
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else peak_bytes()
    return Speed(
        config.resolution, config.num_frames, steps, lower, seconds, peak, counter.get_total_flops()
    )


def report(
    configs: Sequence[LatentSyncConfig],
    device: torch.device,
    peak_tflops: float = H100_TFLOPS,
    **options: Any,
) -> dict[str, Any]:
    """Print a line for each size; returns them by resolution.

    Args:
        configs: of the models, `FULL` or `SMALL`.
        device: device to run on.
        peak_tflops: the device's peak, in bf16.
        options: of `measure`.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{name}, random weights; share of a peak of {peak_tflops:g} TFLOP/s")
    print(f"{'side':>5s} {'type':>5s} {'s/window':>9s} {'frames/s':>9s} {'peak GiB':>9s} ", end="")
    print(f"{'TFLOP':>8s} {'TFLOP/s':>8s} {'share':>7s}")
    table = {}
    for config in configs:
        speed = measure(config, device, **options)
        share = speed.share(peak_tflops)
        work = speed.flops / 1e12
        print(
            f"{speed.resolution:5d} {'bf16' if speed.bf16 else 'fp32':>5s} {speed.seconds:9.3f} "
            f"{speed.frames_per_second:9.2f} {speed.peak_bytes / 2**30:9.2f} {work:8.3f} "
            f"{work / speed.seconds:8.2f} {share:7.1%}",
            flush=True,
        )
        table[str(speed.resolution)] = asdict(speed) | {
            "frames_per_second": speed.frames_per_second,
            "share_of_peak": share,
        }
    return table
