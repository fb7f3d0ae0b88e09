"""How fast the U-Net is, as ratios to diffusers' UNetMotionModel of the same size in one run.

    python -m benchmarks.models                       small, on the CPU, about two minutes
    python -m benchmarks.models --full --device cuda  the published size
    python -m benchmarks.models --seam                how Whisper's tokens jump at 30 s instead
    python -m benchmarks.models --denoise             frames per second of repainting instead
    python -m benchmarks.models --denoise --full --device cuda --peak-tflops 989

Rounds of all candidates are interleaved, so that a busy machine slows all of them alike;
the fastest round of each counts. UNetMotionModel does not have the norms over whole windows, so
being as fast as it is means that they cost nothing.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import denoise
from datasets.media import FPS, SAMPLES_PER_FRAME
from models.audio.whisper_tokens import WhisperTokens
from models.unet import LipSyncUNet
from tasks.lipsync.speech_tokens import SpeechTokens

BAR = 1.05
"""Largest allowed time relative to UNetMotionModel's."""
TOKENS = 50


@dataclass(frozen=True)
class Size:
    """Dimensions shared by both networks."""

    widths: tuple[int, ...]
    audio_width: int
    latents: int
    frames: int


SMALL = Size((64, 128, 256, 256), 96, 16, 16)
FULL = Size((320, 640, 1280, 1280), 384, 32, 16)


def ours(size: Size) -> nn.Module:
    return LipSyncUNet(
        block_out_channels=list(size.widths), cross_attention_dim=size.audio_width
    ).to(memory_format=torch.channels_last)


def theirs(size: Size) -> nn.Module:
    from diffusers import UNetMotionModel

    return UNetMotionModel(
        in_channels=13,
        out_channels=4,
        block_out_channels=size.widths,
        cross_attention_dim=size.audio_width,
        motion_max_seq_length=24,
        use_motion_mid_block=False,
    )


def without_sdpa(size: Size) -> nn.Module:
    """Attention as plain matrix products."""
    from diffusers.models.attention_processor import Attention, AttnProcessor

    network = ours(size)
    for module in network.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    return network


class Candidate:
    """A network with its inputs and the fastest time of each pass."""

    def __init__(
        self, name: str, network: nn.Module, size: Size, device: str, bf16: bool, per_frame: bool
    ) -> None:
        self.name, self.device, self.bf16 = name, torch.device(device), bf16
        self.network = network.to(self.device).eval()
        side = size.latents
        self.sample = torch.randn(1, 13, size.frames, side, side, device=self.device)
        shape = (1, size.frames) if per_frame else (size.frames,)
        self.audio = torch.randn(*shape, TOKENS, size.audio_width, device=self.device)
        self.seconds: dict[str, float] = {}

    def _run(self) -> torch.Tensor:
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with cast:
            output = self.network(self.sample, torch.tensor([500], device=self.device), self.audio)
        return output if isinstance(output, torch.Tensor) else output.sample

    def forward(self) -> None:
        with torch.no_grad():
            self._run()

    def backward(self) -> None:
        self.network.zero_grad(set_to_none=True)
        self._run().float().square().mean().backward()

    def measure(self, name: str, run: Callable[[], None]) -> None:
        begin = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - begin
        self.seconds[name] = min(seconds, self.seconds.get(name, float("inf")))


def candidates(size: Size, device: str, compiled: bool) -> list[Candidate]:
    """diffusers' network first; everything else is compared with it."""
    torch.manual_seed(0)
    found = [
        Candidate("UNetMotionModel", theirs(size), size, device, False, False),
        Candidate("LipSyncUNet", ours(size), size, device, False, True),
    ]
    contiguous = ours(size).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    found += [
        Candidate(
            "LipSyncUNet, attention without SDPA", without_sdpa(size), size, device, False, True
        ),
        Candidate("LipSyncUNet, weights not channels last", contiguous, size, device, False, True),
        Candidate("UNetMotionModel, bf16", theirs(size), size, device, True, False),
        Candidate("LipSyncUNet, bf16", ours(size), size, device, True, True),
    ]
    if compiled:
        network: Any = torch.compile(ours(size))
        found.append(Candidate("LipSyncUNet, compiled", network, size, device, False, True))
    return found


def report(found: Sequence[Candidate]) -> dict[str, Any]:
    """Print the table; returns it."""
    reference = found[0]
    print(f"{'network':42s} {'forward':>9s} {'ratio':>6s} {'fwd+bwd':>9s} {'ratio':>6s}")
    table = {}
    for each in found:
        ratios = {key: each.seconds[key] / reference.seconds[key] for key in each.seconds}
        forward, backward = each.seconds["forward"], each.seconds["backward"]
        print(
            f"{each.name:42s} {forward:8.3f}s {ratios['forward']:6.2f} "
            f"{backward:8.3f}s {ratios['backward']:6.2f}"
        )
        table[each.name] = {"seconds": each.seconds, "ratio": ratios}
    return table


def seam_jumps(encoder: WhisperTokens, seconds: int = 40) -> dict[str, float]:
    """The largest change of the audio tokens of noise from frame to frame, over the median
    change; the first and the last second, where sound begins and ends, are left out.

    Returns:
        of the reference's windows, of `WhisperTokens.encode`, and through lip-sync's
        `SpeechTokens`.
    """
    frames = seconds * FPS
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, frames * SAMPLES_PER_FRAME)
    wave = audio.astype(np.float32)

    def jump(tokens: torch.Tensor) -> float:
        changes = tokens.diff(dim=0).flatten(1).norm(dim=1)[FPS:-FPS]
        return float(changes.max() / changes.median())

    speech = SpeechTokens(encoder.encode, wave).at(np.arange(frames) / FPS)
    found = {"WhisperTokens.encode": jump(encoder.encode(wave, frames))}
    encoder.exact = True
    exact = {"the reference's windows": jump(encoder.encode(wave, frames))}
    return {**exact, **found, "SpeechTokens": jump(speech)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the published size, 1.27 billion")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--seam", action="store_true", help="jumps of Whisper's tokens instead")
    parser.add_argument("--denoise", action="store_true", help="whole windows, see denoise.py")
    parser.add_argument("--steps", type=int, default=20, help="of --denoise")
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="of --denoise; by default as lip-sync"
    )
    parser.add_argument(
        "--peak-tflops", type=float, default=denoise.H100_TFLOPS, help="the card's, dense bf16"
    )
    parser.add_argument("--output", type=Path, help="write the table as JSON")
    options = parser.parse_args(argv)
    if options.seam:
        torch.manual_seed(0)
        jumps = seam_jumps(WhisperTokens().to(options.device))
        for name, value in jumps.items():
            print(f"{name:24s} {value:5.2f} x the median change at most (random weights)")
        return written(jumps, options.output)
    if options.denoise:
        speeds = denoise.report(
            denoise.FULL if options.full else denoise.SMALL,
            torch.device(options.device),
            options.peak_tflops,
            steps=options.steps,
            rounds=options.rounds,
            bf16=options.bf16,
        )
        return written(speeds, options.output)
    found = candidates(FULL if options.full else SMALL, options.device, options.compile)
    for round_ in range(options.rounds + 1):
        for each in found:
            each.measure("forward", each.forward)
            each.measure("backward", each.backward)
        if round_ == 0:
            # The first round includes choosing kernels and allocating memory.
            for each in found:
                each.seconds.clear()
    table = report(found)
    worst = max(table["LipSyncUNet"]["ratio"].values())
    print(f"LipSyncUNet takes {worst:.2f}x of UNetMotionModel's time (at most {BAR} is wanted)")
    written(table, options.output)
    return 0 if worst <= BAR else 1


def written(table: dict[str, Any], output: Path | None) -> int:
    """Write the table as JSON where that is wanted; 0, as an exit code."""
    if output:
        output.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
