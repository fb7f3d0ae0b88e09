"""A stage as it would be trained, with drawn weights and drawn windows.

It needs no dataset and no weight file, and computes what the stage computes. So it can say before a
training what that will need, and whether a recipe works on a machine.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.audio.avhubert_tokens import AVHubertTokens
from models.autoencoder import build_autoencoder
from models.judges.lpips import STAND_IN, VggLpips
from models.judges.videomae import VideoMAE
from models.latentsync.diffusion import TRAIN_STEPS
from models.latentsync.model import LatentSync
from models.unet.lora import TARGETS
from tasks.recipes.adapt import AdaptConfig
from tasks.recipes.config import Recipe, StageConfig, SyncNetConfig, UNetConfig
from tasks.sync.network_files import PAPER_THRESHOLD, LoadedSyncNet, build_syncnet
from tasks.train.assemble import model_config
from tasks.train.batches import SyncBatch, UNetBatch
from tasks.train.hearing import Learners
from tasks.train.pixel_losses import PixelLosses
from tasks.train.syncnet import LatentSight, pairs_loss
from tasks.train.unet import choose_trained, denoise, encode_batch, pose_lag, spare_activations

MEL = (1, 80, 52)
"""Of a window's sound."""
HEARD_FRAMES = 250
"""Of a clip, which a learning audio encoder hears as a whole: as long as clips usually get."""


@dataclass(frozen=True)
class DrawnStage:
    """A stage that is ready for a step."""

    name: str
    config: StageConfig
    network: nn.Module
    """What learns; some of its weights may be frozen."""
    frozen: tuple[nn.Module, ...]
    """All other networks."""
    loss: Callable[[int], Tensor]
    """The loss of so many drawn samples, with gradient."""

    @property
    def part(self) -> int:
        """Samples that a worker computes at once."""
        return self.config.micro_batch or self.config.batch_size

    @property
    def learned(self) -> list[nn.Parameter]:
        """The weights that learn."""
        return [each for each in self.network.parameters() if each.requires_grad]


def drawn_stage(
    recipe: Recipe, name: str, device: torch.device, adapter: AdaptConfig | None = None
) -> DrawnStage:
    """Build one stage of a recipe, or an adaptation of its model.

    Args:
        recipe: what is trained.
        name: one of `recipes.config.STAGES`, which the recipe has.
        device: where to build it; `meta` for shapes alone.
        adapter: how the model that stage 2 has trained is adapted; then `name` does not matter.
    """
    if adapter is not None:
        return _adapter(_unet(recipe, "stage2", adapter, device), adapter)
    config = recipe.stage(name)
    if config is None:
        raise ValueError(f"the recipe {recipe.name} has no stage {name}")
    if isinstance(config, UNetConfig):
        return _unet(recipe, name, config, device)
    with torch.device(device):
        if isinstance(config, SyncNetConfig):
            return _syncnet(recipe, name, config)
        return _autoencoder(recipe, config)


def _autoencoder(recipe: Recipe, config: StageConfig) -> DrawnStage:
    model, side = recipe.model, recipe.resolution
    network = build_autoencoder(model.autoencoder, model.latent_channels, model.scaling_factor)
    coder: Any = network.train()

    def loss(samples: int) -> Tensor:
        device = _device(network)
        pixels = _pixels((samples, 3, side, side), device)
        found: Tensor = (coder.decode(coder.encode(pixels)) - pixels).float().square().mean()
        return found

    return DrawnStage("autoencoder", config, network, (), loss)


def _syncnet(recipe: Recipe, name: str, config: SyncNetConfig) -> DrawnStage:
    network = build_syncnet(config.network, config.options).train()
    judge, rows, side = network, config.resolution // 2, config.resolution
    if config.sees == "latents":
        model, rows = recipe.model, side
        autoencoder = build_autoencoder(
            model.autoencoder, model.latent_channels, model.scaling_factor
        )
        judge = LatentSight(autoencoder.requires_grad_(False), network)

    def loss(samples: int) -> Tensor:
        device = _device(network)
        frames = _pixels((samples, config.num_frames, 3, rows, side), device)
        mel = torch.randn(samples, *MEL, device=device)
        labels = torch.arange(samples, device=device) % 2
        return pairs_loss(judge, SyncBatch(frames, mel, labels.float()))[0]

    frozen = (judge.autoencoder,) if isinstance(judge, LatentSight) else ()
    return DrawnStage(name, config, network, frozen, loss)


def _unet(recipe: Recipe, name: str, config: UNetConfig, device: torch.device) -> DrawnStage:
    empty = device.type == "meta"
    model = LatentSync(model_config(recipe, name), empty=empty)
    if not empty:
        model.to(device)
    model.channels_last().eval().requires_grad_(False)
    choose_trained(model.unet, config.trains)
    spare_activations(model, config)
    with torch.device(device):
        losses = _pixel_losses(recipe, config)
    audio: Any = model.audio_encoder
    learners = Learners(model.unet, audio, config.audio_blocks) if config.audio_blocks else None
    side = model.config.resolution
    frames = -(-model.config.num_frames // config.frame_step)
    cells, posed = tuple(model.latent_mask.shape[-2:]), pose_lag(model) > 0

    def loss(samples: int) -> Tensor:
        device = _device(model.unet)
        shape = (samples, frames, 3, side, side)
        if learners is None:
            shown = samples, frames, audio.tokens_per_frame, audio.width
            tokens = torch.randn(shown, device=device)
        else:
            tokens = _learned_tokens(audio, config, samples, frames)
        batch = UNetBatch(
            target=_pixels(shape, device),
            surroundings=_pixels(shape, device),
            swapped=torch.zeros(samples, device=device),
            reference=_pixels(shape, device),
            tokens=tokens,
            mouth=torch.rand(samples, frames, 4, device=device),
            mel=torch.randn(samples, *MEL, device=device),
            pose=_pixels((samples, 1, 3, side, side), device) if posed else None,
            pose_shown=torch.ones(samples, device=device) if posed else None,
        )
        latents = encode_batch(model, batch)
        noise = torch.randn(samples, model.config.latent_channels, frames, *cells, device=device)
        timesteps = torch.full((samples,), TRAIN_STEPS // 2, device=device)
        return denoise(model, losses, batch, latents, noise, timesteps).total

    network = (learners or model.unet).train()
    return DrawnStage(name, config, network, (model, losses, *_hidden(losses)), loss)


def _learned_tokens(
    encoder: AVHubertTokens, config: UNetConfig, samples: int, frames: int
) -> Tensor:
    """Tokens (b, f, n, width) with the gradient of the encoder's last blocks, run once a clip."""
    blocks, made = config.audio_blocks, []
    for first in range(0, samples, config.windows_per_clip):
        hidden = torch.randn(HEARD_FRAMES, encoder.width, device=_device(encoder))
        tokens = encoder.frame_tokens(encoder.last_blocks([hidden], HEARD_FRAMES, blocks))
        made += [tokens[:frames]] * min(config.windows_per_clip, samples - first)
    return torch.stack(made)


def _adapter(stage: DrawnStage, config: AdaptConfig) -> DrawnStage:
    """A drawn stage of which adapters alone learn."""
    # It takes seconds to import, and nothing else needs it.
    from peft import LoraConfig, inject_adapter_in_model

    stage.network.requires_grad_(False)
    with torch.device(_device(stage.network)):
        inject_adapter_in_model(
            LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(TARGETS)),
            stage.network,
        )
    return replace(stage, name="adapter")


def _pixel_losses(recipe: Recipe, config: UNetConfig) -> PixelLosses:
    weights, sync, trepa = config.losses, None, None
    if weights.sync:
        judge = recipe.syncnet_latents if weights.judges_latents else recipe.syncnet
        assert judge is not None
        network = build_syncnet(judge.network, judge.options)
        network.requires_grad_(False).eval()
        sync = LoadedSyncNet(network, judge, PAPER_THRESHOLD)
    if weights.trepa:
        # The network that the recipes name; another one is as large as its file.
        trepa = VideoMAE().eval().requires_grad_(False)
        if config.gradient_checkpointing:
            trepa.enable_gradient_checkpointing()
    lpips = None
    if weights.lpips:
        lpips = VggLpips(divide=1 if config.lpips_weights else STAND_IN).requires_grad_(False)
    on_latents = weights.judges_latents
    return PixelLosses(
        weights, None if on_latents else sync, lpips, trepa, sync if on_latents else None
    )


def _hidden(losses: PixelLosses) -> list[nn.Module]:
    """Networks of the losses that are not their modules."""
    return [each.network for each in (losses.syncnet, losses.on_latents) if each]


def _pixels(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Noise as pictures, in [-1, 1]."""
    return torch.rand(shape, device=device) * 2 - 1


def _device(network: nn.Module) -> torch.device:
    """Where it is now."""
    return next(network.parameters()).device
