"""How much memory and time a full-size LatentSync checkpoint takes: converting it, back, and in
use.

    python -m benchmarks.convert     about 15 minutes on 2 cores, 25 GB of disk, 16 GiB of memory

Writes a random stage 2 checkpoint of the published size (float32, 5 GB), converts it with
`models.convert.command`, converts it back, compares every value, and runs the U-Net on one window
at 256 pixels. Then a bundle is made of it by `tasks.registry.import_weights`, with random files of
the other networks, and a window is repainted by the bundle. Each step is a process of its
own, whose peak the kernel reports: mapped pages of files count as well. Everything is written
to a folder that is removed at the end.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Only the steps import torch, since a process begins with the peak of the one that started it.
from tasks.weights.download import free_bytes
from tests.parity import CASES

BAR_BYTES = 16 << 30
"""Largest resident set of a step."""
DISK_BYTES = 25 * 10**9
FRAMES, TOKENS, LATENTS = 16, 50, 32
"""Frames of one window at 256 pixels."""
ROOT = Path(__file__).resolve().parents[1]


def write(folder: Path) -> str:
    """A checkpoint with the published keys and shapes, of random values."""
    import torch

    case = json.loads((CASES / "unet_stage2.json").read_text(encoding="utf-8"))
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in case["full_state_dict"].items():
        value = torch.randn(shape, generator=generator).mul_(0.02)
        state[key] = value.add_(1) if "norm" in key and key.endswith("weight") else value
    torch.save({"global_step": 1, "state_dict": state}, folder / "unet.pt")
    count = sum(value.numel() for value in state.values())
    return f"{len(state)} entries, {count / 1e9:.2f} billion values"


def convert(folder: Path) -> str:
    """`python -m models.convert unet.pt out`."""
    from models.convert.command import convert as run

    return run(folder / "unet.pt", folder / "out").splitlines()[-1]


def back(folder: Path) -> str:
    """`python -m models.convert out back.pt`."""
    from models.convert.command import convert as run

    return run(folder / "out", folder / "back.pt").splitlines()[-1]


def compare(folder: Path) -> str:
    """Every value of both checkpoints.

    Raises:
        ValueError: a value differs.
    """
    import torch

    from models.files.state_dict import read_state_dict

    before, after = (read_state_dict(folder / name) for name in ("unet.pt", "back.pt"))
    differing = [
        key for key in before.keys() | after.keys() if key not in before or key not in after
    ]
    differing += [
        key for key in before if key in after and not torch.equal(before[key], after[key])
    ]
    if differing:
        raise ValueError(f"{len(differing)} entries differ, such as {differing[0]}")
    return f"{len(before)} entries are equal"


def forward(folder: Path) -> str:
    """One window through the converted U-Net.

    Raises:
        ValueError: the output is not finite.
    """
    import torch

    from models.unet import LipSyncUNet

    unet: Any = LipSyncUNet.from_pretrained(folder / "out")
    unet.eval()
    began = time.monotonic()
    with torch.inference_mode():
        output = unet(
            torch.randn(1, 13, FRAMES, LATENTS, LATENTS),
            torch.tensor([500]),
            torch.randn(1, FRAMES, TOKENS, 384),
        )
    if not output.isfinite().all():
        raise ValueError("the U-Net's output is not finite")
    return f"output {tuple(output.shape)}, the pass itself {time.monotonic() - began:.1f} s"


def files(folder: Path) -> str:
    """Random files of the other published networks, in their formats."""
    import torch
    from safetensors.torch import save_file

    from models.audio.whisper_files import DIMS, to_openai
    from models.audio.whisper_tokens import WhisperTokens
    from models.autoencoder import KLAutoencoder
    from models.syncnet.stable import StableSyncNet, pixel_config

    torch.manual_seed(0)
    save_file(KLAutoencoder().vae.state_dict(), folder / "vae.safetensors")
    WhisperTokens().encoder.save_pretrained(folder / "whisper")
    torch.save(to_openai(folder / "whisper"), folder / "tiny.pt")
    state = StableSyncNet(pixel_config()).state_dict()
    torch.save({"global_step": 1, "state_dict": state}, folder / "syncnet.pt")
    return f"autoencoder, Whisper ({len(DIMS)} sizes), StableSyncNet"


def bundle(folder: Path) -> str:
    """`python -m flows.import_weights bundle --unet unet.pt --resolution 256 ...`."""
    from tasks.registry.import_weights import build_bundle
    from tasks.registry.third_party import Files

    names = ("unet.pt", "vae.safetensors", "tiny.pt", "syncnet.pt")
    given = Files(*(str(folder / name) for name in names))
    build_bundle(folder / "bundle", given, 256, lambda line: None)
    return f"{sum(path.stat().st_size for path in (folder / 'bundle').rglob('*')) / 1e9:.1f} GB"


def window(folder: Path) -> str:
    """One window repainted by the bundle, with guidance, one step of the sampler.

    Raises:
        ValueError: the result is not finite.
    """
    import torch

    from models.latentsync.model import LatentSync

    model = LatentSync.load(folder / "bundle")
    began = time.monotonic()
    faces = torch.rand(1, FRAMES, 3, 256, 256) * 2 - 1
    tokens = model.tokens(torch.randn(16_000), FRAMES)[None]
    painted = model.generate(faces, faces, tokens, steps=1, guidance=1.5)
    if not painted.isfinite().all():
        raise ValueError("the repainted window is not finite")
    return f"one step of the sampler {time.monotonic() - began:.1f} s"


STEPS = {
    each.__name__: each for each in (write, convert, back, compare, forward, files, bundle, window)
}
MAKE = ("write", "files")
"""Steps that only make the inputs of others."""


def run_step(name: str, folder: Path) -> dict[str, Any]:
    """Run a step in a process of its own.

    Raises:
        RuntimeError: the step failed.
    """
    command = [sys.executable, "-m", "benchmarks.convert", "--step", name, "--work", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"the step {name} failed: {said[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _this_step(name: str, folder: Path) -> None:
    began = time.monotonic()
    said = STEPS[name](folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": time.monotonic() - began, "peak_bytes": peak, "said": said}))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where to make the folder")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.step:
        _this_step(options.step, options.work)
        return 0
    free = free_bytes(options.work)
    if free < DISK_BYTES:
        print(
            f"{options.work} has {free / 1e9:.0f} GB free, but {DISK_BYTES / 1e9:.0f} are needed: "
            "choose another folder with --work",
            file=sys.stderr,
        )
        return 2
    options.work.mkdir(parents=True, exist_ok=True)
    figures = {}
    print(f"{'step':10s} {'seconds':>8s} {'peak GiB':>9s}")
    with tempfile.TemporaryDirectory(prefix="convert-benchmark-", dir=options.work) as folder:
        for name in STEPS:
            figures[name] = found = run_step(name, Path(folder))
            gib = found["peak_bytes"] / (1 << 30)
            print(f"{name:10s} {found['seconds']:8.1f} {gib:9.2f}  {found['said']}", flush=True)
    worst = max(figures[name]["peak_bytes"] for name in STEPS if name not in MAKE)
    met = worst <= BAR_BYTES
    print(
        f"largest peak {worst / (1 << 30):.2f} GiB, at most {BAR_BYTES >> 30} wanted: "
        f"{'met' if met else 'MISSED'}"
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
