"""The recipes and their values.

`tiny` trains every stage from nothing on two CPU cores within the demo's minutes; `debug`
does the same in seconds and learns next to nothing. The others have the values of
LatentSync (arXiv 2412.09262, and its releases 1.5 and 1.6); values that these do not publish,
such as numbers of steps, are ours and can be overridden. The recipes that begin with `syncdiff` are
our variant of SyncDiff (arXiv 2503.13371), of which neither code nor sizes were published.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from models.latentsync.config import LatentSyncConfig, PoseConfig
from tasks.recipes.config import AutoencoderConfig, LossWeights, Recipe, SyncNetConfig, UNetConfig
from tasks.recipes.evaluation import EvaluationConfig

PAPER_LR = 1e-5
"""Learning rate of every stage in the paper: constant, with gradients clipped at 1."""
WINDOWS_PER_CLIP = 4
"""Windows that the paper's recipes cut from each clip: reading costs a third less than with one.
Mixed with those of other clips, the 256 of a batch are from 115 clips, 24 from 16, and 2 from 2."""
MOTION = {"motion_resolutions": [1, 2, 4, 8]}


def tiny() -> Recipe:
    """All stages on a CPU in about ten minutes: mel tokens, small networks, 128 pixels."""
    model = LatentSyncConfig(
        resolution=128,
        num_frames=16,
        audio="mel",
        latent_channels=32,
        scaling_factor=1.0,
        prediction_type="sample",
        reference="still",
        unet={
            "block_out_channels": [64, 64],
            "layers_per_block": 1,
            "attention": ["cross", "cross"],
            "attention_heads": 4,
            "norm_num_groups": 8,
            "motion_resolutions": [],
            "motion_heads": 4,
            "motion_norm_groups": 8,
            "ff_mult": 2,
            "residual": True,
        },
        autoencoder={"kind": "patch", "patch": 8},
        audio_encoder={"tokens": 7, "width": 88},
    )
    return Recipe(
        name="tiny",
        model=model,
        autoencoder=AutoencoderConfig(
            steps=300,
            batch_size=16,
            lr=2e-3,
            warmup=20,
            schedule="cosine",
            weight_decay=0.0,
            checkpoint_every=100,
            augment=1.0,
            shift=0.025,
        ),
        syncnet=SyncNetConfig(
            network="frame",
            resolution=128,
            steps=140,
            batch_size=48,
            windows_per_clip=8,
            lr=2e-3,
            warmup=10,
            weight_decay=0.1,
            ema=0.95,
            checkpoint_every=50,
            augment=1.0,
            shift=0.025,
            time_warp=0.3,
            sound_augment=1.0,
            calibrate=True,
        ),
        stage1=UNetConfig(
            steps=300,
            batch_size=16,
            frame_step=4,
            lr=1.5e-3,
            warmup=20,
            schedule="cosine",
            ema=0.98,
            checkpoint_every=50,
            test_every=50,
            sample_every=300,
            augment=1.0,
            sound_augment=0.5,
            swap_surroundings=0.3,
            timestep_power=1 / 8,
            losses=LossWeights(inside=4.0, mouth=20.0),
        ),
        stage2=UNetConfig(
            steps=40,
            batch_size=4,
            lr=1e-4,
            warmup=5,
            ema=0.9,
            checkpoint_every=20,
            test_every=20,
            sample_every=40,
            log_every=5,
            augment=1.0,
            sound_augment=0.5,
            timestep_power=1 / 8,
            trains="motion+attention",
            motion={"motion_resolutions": [1, 2]},
            losses=LossWeights(sync=0.05, pixel=0.2, inside=4.0, mouth=20.0),
        ),
        evaluation=EvaluationConfig(clips=4, frames_per_clip=96, steps=4, guidance=1.5),
    )


def debug() -> Recipe:
    """Every stage for a few steps on pictures of 64 pixels: seconds, for tests."""
    base = tiny()
    model = replace(
        base.model,
        resolution=64,
        latent_channels=8,
        unet={
            **base.model.unet,
            "block_out_channels": [16, 16],
            "attention_heads": 2,
            "motion_heads": 2,
        },
        autoencoder={**base.model.autoencoder, "encoder_width": 8, "decoder_width": 8},
    )
    quick: dict[str, Any] = {"warmup": 0, "checkpoint_every": 2, "log_every": 1}
    assert base.autoencoder is not None
    return replace(
        base,
        name="debug",
        model=model,
        autoencoder=replace(base.autoencoder, steps=6, batch_size=4, test_frames=4, **quick),
        syncnet=replace(
            base.syncnet,
            steps=6,
            batch_size=4,
            windows_per_clip=2,
            resolution=64,
            options={"width": 8, "size": [16, 32]},
            test_windows=16,
            test_every=3,
            **quick,
        ),
        stage1=replace(
            base.stage1,
            steps=6,
            batch_size=2,
            test_every=3,
            test_windows=4,
            sample_every=6,
            **quick,
        ),
        stage2=replace(
            base.unet("stage2"), steps=4, batch_size=1, test_every=2, test_windows=4, **quick
        ),
        evaluation=EvaluationConfig(clips=1, frames_per_clip=20, steps=2, guidance=1.5),
    )


def paper_256() -> Recipe:
    """LatentSync 1.5: full size at 256 from Stable Diffusion 1.5's weights."""
    common: dict[str, Any] = {
        "lr": PAPER_LR,
        "precision": "fp16",
        "gradient_checkpointing": True,
        "checkpoint_every": 1000,
        "log_every": 50,
        "windows_per_clip": WINDOWS_PER_CLIP,
        "test_every": 1000,
        "sample_every": 1000,
    }
    return Recipe(
        name="paper-256",
        model=LatentSyncConfig(
            resolution=256,
            num_frames=16,
            audio="whisper",
            latent_channels=4,
            scaling_factor=0.18215,
            prediction_type="epsilon",
            unet={"motion_resolutions": []},
            autoencoder={"kind": "kl"},
            audio_encoder={},
        ),
        autoencoder=None,
        autoencoder_weights="sd-vae-ft-mse",
        audio_weights="whisper-tiny",
        syncnet=SyncNetConfig(
            network="stable",
            options={"config": "16_pixel_attn", "gradient_checkpointing": True},
            resolution=256,
            steps=100_000,
            batch_size=256,
            lr=PAPER_LR,
            precision="fp16",
            checkpoint_every=1000,
            log_every=50,
            test_every=1000,
            windows_per_clip=WINDOWS_PER_CLIP,
        ),
        stage1=UNetConfig(steps=100_000, batch_size=24, weights="sd-1.5-unet", **common),
        stage2=UNetConfig(
            steps=50_000,
            batch_size=2,
            trains="motion+attention",
            motion=MOTION,
            losses=LossWeights(sync=0.05, lpips=0.1, trepa=10.0),
            lpips_weights="vgg16-lpips",
            trepa_weights="videomae-v2",
            **common,
        ),
        evaluation=EvaluationConfig(),
    )


def paper_512() -> Recipe:
    """LatentSync 1.6: the same at 512; the sync network sees pictures scaled to 256."""
    base = paper_256()
    return replace(
        base,
        name="paper-512",
        model=replace(base.model, resolution=512),
        stage1=replace(base.stage1, batch_size=6),
        stage2=replace(base.unet("stage2"), batch_size=1),
    )


def stage2_efficient() -> Recipe:
    """Fine-tuning of the published 1.5 networks within 20 GB: no TREPA, fewer weights."""
    base = paper_256()
    motion = {**MOTION, "motion_decoder_only": True}
    return replace(
        base,
        name="stage2-efficient",
        syncnet=replace(base.syncnet, steps=0, weights="latentsync-1.5-syncnet"),
        stage1=replace(base.stage1, steps=0, weights="latentsync-1.5-unet", motion=motion),
        stage2=replace(
            base.unet("stage2"),
            batch_size=1,
            trains="motion+attn2",
            motion=motion,
            losses=LossWeights(sync=0.05, lpips=0.1),
            trepa_weights="",
        ),
    )


POSE = PoseConfig(kind="vector", width=2)
"""The narrowest of the bottlenecks that `python -m benchmarks.shortcut` compares: the least room
for lips to be copied from the frame before."""


def syncdiff_tiny() -> Recipe:
    """Our variant of SyncDiff (arXiv 2503.13371), whose sizes are not public, in minutes on a CPU.

    The networks of `tiny`, but for single frames that are generated one after the other, each
    shown the frame before it through a bottleneck of two numbers.
    """
    base = tiny()
    frames = base.model.num_frames // base.stage1.frame_step
    return replace(
        base,
        name="syncdiff-tiny",
        model=replace(base.model, num_frames=1, pose=POSE),
        # As many frames of as many clips as `tiny` learns from in a step.
        stage1=replace(
            base.stage1,
            batch_size=base.stage1.batch_size * frames,
            windows_per_clip=frames,
            frame_step=1,
            test_windows=base.stage1.test_windows * frames,
        ),
        stage2=None,
    )


def syncdiff_256() -> Recipe:
    """Our variant of SyncDiff (arXiv 2503.13371), whose sizes are not public, at 256 on GPUs.

    AV-HuBERT's speech features, for non-commercial research only, its last 3 of 12 blocks trained
    along, which the paper found best; the U-Net starts from Stable Diffusion 1.5's weights, or from
    LatentSync's with stage1.weights=latentsync-1.5-unet.
    """
    base = paper_256()
    return replace(
        base,
        name="syncdiff-256",
        model=replace(base.model, num_frames=1, audio="avhubert", pose=POSE),
        audio_weights="av-hubert-base",
        syncnet=replace(base.syncnet, steps=0, weights="latentsync-1.5-syncnet"),
        # Sound is left as it is, so that the frozen blocks hear each clip once.
        stage1=replace(
            base.stage1, batch_size=64, windows_per_clip=8, sound_augment=0.0, audio_blocks=3
        ),
        stage2=None,
    )


def taesd_256() -> Recipe:
    """LatentSync in Stable Diffusion's latents without its size: TAESD, a tiny published
    autoencoder of these, mel tokens, and a U-Net narrow enough for two cores and a night."""
    base = _in_taesd(tiny())
    return replace(
        base,
        name="taesd-256",
        # Pixels of one window at a time fit into 6 GB.
        stage2=replace(
            base.unet("stage2"), steps=200, micro_batch=1, checkpoint_every=50, test_every=50
        ),
    )


def _in_taesd(base: Recipe) -> Recipe:
    """A small recipe at 256 in Stable Diffusion's latents."""
    model = replace(
        base.model,
        resolution=256,
        latent_channels=4,
        unet={**base.model.unet, "block_out_channels": [64, 128], "layers_per_block": 2},
        autoencoder={"kind": "taesd"},
    )
    return replace(
        base,
        model=model,
        autoencoder=None,
        autoencoder_weights="taesd",
        stage1=replace(base.stage1, steps=2000, lr=5e-4, checkpoint_every=200, test_every=200),
    )


def syncdiff_taesd() -> Recipe:
    """Our variant of SyncDiff (arXiv 2503.13371), whose sizes are not public, at 256 without a
    large GPU: a tiny published autoencoder, mel tokens, a small U-Net."""
    return replace(_in_taesd(syncdiff_tiny()), name="syncdiff-taesd")


RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny,
    "debug": debug,
    "paper-256": paper_256,
    "paper-512": paper_512,
    "stage2-efficient": stage2_efficient,
    "taesd-256": taesd_256,
    "syncdiff-tiny": syncdiff_tiny,
    "syncdiff-256": syncdiff_256,
    "syncdiff-taesd": syncdiff_taesd,
}
"""Recipes by name."""
