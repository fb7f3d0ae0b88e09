"""What is trained and how: a recipe is a typed configuration with a name."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from models.latentsync.config import LatentSyncConfig
from tasks.recipes.evaluation import EvaluationConfig

Precision = Literal["fp32", "bf16", "fp16"]
STAGES = ("autoencoder", "syncnet", "syncnet_latents", "stage1", "stage2")
"""In the order of training; each may use what the earlier ones learned."""
LATENTS_SEEN = [16, 16]
"""Height and width to which a small sync network reduces the latents of a face."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Settings of every training stage."""

    steps: int
    """Optimizer steps of the whole stage."""
    batch_size: int
    """Samples per step and worker."""
    lr: float
    """Peak learning rate of AdamW."""
    warmup: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: kept, or lowered to 0 along half a cosine."""
    weight_decay: float = 0.01
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient of all weights together."""
    ema: float = 0.0
    """Decay of the averaged weights that a stage hands on; 0 hands on the latest weights."""
    precision: Precision = "fp32"
    """Precision of the networks on CUDA; other devices always compute in fp32."""
    micro_batch: int = 0
    """Samples that a worker computes at once: a batch is done in parts of this size, which need
    less memory and give the same step; 0 for the whole batch."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several workers train together: `ddp`, each has a whole copy of the network; `fsdp`, each
    keeps a share of weights, gradients and moments, which makes room for larger networks."""
    compile: bool = False
    """Compile the network's repeated blocks with torch.compile: a slow start, faster steps on a
    GPU."""
    checkpoint_every: int = 500
    """Steps between two checkpoints: the most that a kill can cost."""
    keep_last: int = 1
    """Checkpoints that are kept, the latest ones."""
    patience: int = 10
    """Steps in a row without a finite loss and gradient after which training stops."""
    log_every: int = 10
    """Number of steps over which a logged value is averaged."""
    augment: float = 0.0
    """Strength of colour changes, 0 to 1: channel order, contrast, tone curve."""
    reader: Literal["auto", "memory", "stream"] = "auto"
    """`memory`: clips are decoded once and kept; `stream`: shards are read one after the other,
    clips mixed; `auto`: `memory` if all decoded frames fit into 2 GiB."""
    reading_workers: int = 0
    """Processes that read for each worker when shards are streamed; 0: one for each core that the
    workers leave free, at most 16."""
    mixed_mb: int = 256
    """Megabytes of windows that wait in each of these processes to be mixed with later ones."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(StageConfig):
    """The small autoencoder of the tiny recipe, trained on the dataset's own frames."""

    shift: float = 0.0
    """Largest displacement of a picture, as a share of its side."""
    frames_per_clip: int = 4
    """Frames of a batch that come from one clip: more frames mean fewer clips to decode."""
    test_frames: int = 64
    """Frames of unseen clips on which the PSNR is measured."""


@dataclass(frozen=True, kw_only=True)
class SyncNetConfig(StageConfig):
    """A network that judges whether lips and sound belong together."""

    network: Literal["frame", "stable"]
    """`frame`: FrameSyncNet, learns on a CPU; `stable`: StableSyncNet of the paper."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network."""
    weights: str = ""
    """A published checkpoint to start from (with `steps=0`: to use as it is), or empty."""
    sees: Literal["pixels", "latents"] = "pixels"
    """What it judges: the lower half of the face, or the model's latents of all of it."""
    resolution: int = 256
    """Side of the face to which frames are scaled before the lower half is cut."""
    num_frames: int = 16
    """Frames per window."""
    min_distance: int = 16
    """Least distance in frames between the two windows of a negative pair."""
    windows_per_clip: int = 1
    """Windows of a batch that come from one clip."""
    shift: float = 0.0
    """Largest displacement of a window, as a share of its side."""
    time_warp: float = 0.0
    """Largest change of speed of a window and its sound, as a share."""
    sound_augment: float = 0.0
    """Strength of changes of loudness, spectral tilt and noise, 0 to 1."""
    calibrate: bool = False
    """Choose the cosine above which a pair counts as in sync on training windows,
    instead of the paper's 0.5."""
    test_windows: int = 512
    """Windows of held-out speakers, half of them negative, on which accuracy is measured."""
    test_every: int = 50
    """Steps between two measurements on held-out speakers for the curve."""


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the parts of the U-Net's loss (LatentSync, section 3.4). 0 leaves a part out."""

    noise: float = 1.0
    """Squared error of the predicted noise (or of x0, depending on the prediction type)."""
    sync: float = 0.0
    """SyncNet's loss on x0."""
    sync_on: Literal["pixels", "latents"] = "pixels"
    """What the sync network sees of x0: the decoded picture, or its latents; then the recipe has
    the stage `syncnet_latents`, too."""
    lpips: float = 0.0
    """Perceptual distance of the lower half of the decoded x0 by VGG."""
    trepa: float = 0.0
    """Distance of video features of the decoded x0."""
    pixel: float = 0.0
    """Absolute error of the decoded x0 inside the mask."""
    inside: float = 1.0
    """Weight of the repainted cells in `noise`, compared with 1 for kept cells."""
    mouth: float = 1.0
    """Weight of the cells around the mouth in `noise`."""

    @property
    def decodes(self) -> bool:
        """Whether any part needs pixels, and so the decoder's gradient."""
        sees_pixels = self.sync and self.sync_on == "pixels"
        return any((sees_pixels, self.lpips, self.trepa, self.pixel))

    @property
    def judges_latents(self) -> bool:
        """Whether a sync network sees the latents of x0."""
        return bool(self.sync) and self.sync_on == "latents"


@dataclass(frozen=True, kw_only=True)
class UNetConfig(StageConfig):
    """One stage of training the U-Net."""

    losses: LossWeights = field(default_factory=LossWeights)
    """Parts of the loss."""
    trains: Literal["all", "motion+attention", "motion+attn2"] = "all"
    """Which weights are trained: all, motion modules and attentions (the paper's stage 2), or
    motion modules and audio attentions only."""
    motion: dict[str, Any] = field(default_factory=dict)
    """U-Net options that this stage adds to `model.unet`: its motion modules."""
    weights: str = ""
    """A published checkpoint that stage 1 starts from; if empty, fresh weights."""
    lpips_weights: str = ""
    """File or name of LPIPS' VGG; empty: a seeded network of its kind, and a note."""
    trepa_weights: str = ""
    """File, folder or name of the VideoMAE that TREPA compares with."""
    frame_step: int = 1
    """Use every n-th frame of a window: 4 gives many different windows per step."""
    min_distance: int = 16
    """Least distance in frames between target and reference window."""
    windows_per_clip: int = 1
    """Windows of a batch that come from one clip."""
    sound_augment: float = 0.0
    """Strength of changes of loudness, spectral tilt and noise, 0 to 1."""
    swap_surroundings: float = 0.0
    """Probability that the masked picture shows another moment of the clip, so that the mouth
    cannot be inferred from the jaw and must be heard."""
    pose_noise: float = 0.0
    """Largest standard deviation of noise on the latents of the pose frame, uniform below it for
    each window: the lips in it cannot be copied."""
    pose_dropout: float = 0.0
    """Probability that a window is shown zeros instead of its pose frame."""
    audio_blocks: int = 0
    """Last blocks of AV-HuBERT's encoder that learn along, with the norm behind them; 0: all of it
    is frozen. 3 of 12 is what SyncDiff found best."""
    audio_lr: float = 1e-5
    """Their peak learning rate."""
    audio_dropout: float = 0.1
    """Probability that a window's audio is replaced by zeros: the unconditional branch."""
    timestep_power: float = 1.0
    """Timesteps are T * u^power with u uniform: values below 1 favour more noise."""
    noise_alpha: float = 1.0
    """How much of the noise all frames share: std sqrt(a^2 / (1 + a^2))."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    test_every: int = 0
    """Steps between two measurements of the loss on held-out speakers; 0 for none."""
    test_windows: int = 16
    """Windows of held-out speakers, of evenly spread timesteps, on which it is measured."""
    sample_every: int = 0
    """Steps between two videos of held-out clips, repainted with their own and with other speech;
    the last step gets them, too. 0 for none."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that defines a training run apart from its dataset and device."""

    name: str
    """The recipe's name before any override; of a recipe file, the file's name."""
    base: str = ""
    """The recipe that a recipe file is based on; empty for our own."""
    model: LatentSyncConfig
    """The networks of the trained bundle."""
    autoencoder: AutoencoderConfig | None
    """How the autoencoder is trained; None: frozen published weights."""
    autoencoder_weights: str = ""
    """Published autoencoder weights, if it is not trained."""
    audio_weights: str = ""
    """Published weights of the audio encoder, if it has any."""
    syncnet: SyncNetConfig
    """The sync network."""
    stage1: UNetConfig
    """The U-Net on noise alone."""
    stage2: UNetConfig | None
    """The U-Net with motion modules and losses in pixel space; None: stage 1 is the last."""
    evaluation: EvaluationConfig
    """The short evaluation at the end."""
    seed: int = 1247
    """Seed of weights, data and noise."""

    @property
    def resolution(self) -> int:
        """Side of the aligned face, pixels."""
        return self.model.resolution

    @property
    def syncnet_latents(self) -> SyncNetConfig | None:
        """The sync network that sees latents, for a loss on them alone: trained as the other one,
        which judges the result. None where no loss asks for it."""
        stages = (self.stage1, self.stage2)
        if not any(each is not None and each.losses.judges_latents for each in stages):
            return None
        if self.syncnet.network == "frame":
            sight = {"channels": self.model.latent_channels, "size": LATENTS_SEEN}
        else:
            sight = {"config": "16_latent"}
        return replace(
            self.syncnet,
            sees="latents",
            weights="",
            resolution=self.resolution,
            options={**self.syncnet.options, **sight},
        )

    def unet(self, name: str) -> UNetConfig:
        """The configuration of a stage of the U-Net, "stage1" or "stage2".

        Raises:
            ValueError: the recipe has no such stage.
        """
        found = self.stage(name)
        if not isinstance(found, UNetConfig):
            raise ValueError(f"the recipe {self.name} does not train a U-Net in {name}")
        return found

    def stage(self, name: str) -> StageConfig | None:
        """The configuration of one of `STAGES`; None if the recipe has no such stage."""
        found: StageConfig | None = getattr(self, name)
        return found
