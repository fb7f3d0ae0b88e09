"""What is trained and how: a recipe is a typed configuration with a name.

`recipe(name, overrides)` gives one; its values are in recipe_values.py. Overrides are
texts such as `stage1.steps=20` or `model.unet.layers_per_block=1`: the path must exist
and the value must be of the field's type.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from datasets.errors import UserError
from models.latentsync.config import LatentSyncConfig
from tasks.evaluation_config import EvaluationConfig

Precision = Literal["fp32", "bf16", "fp16"]
STAGES = ("autoencoder", "syncnet", "stage1", "stage2")
"""In the order of training; each may use what the ones before it learned."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every training stage has."""

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
    """Decay of the averaged weights that a stage hands on; 0 hands on the last ones."""
    precision: Precision = "fp32"
    """Of the networks' arithmetic on CUDA; other devices always compute in fp32."""
    checkpoint_every: int = 500
    """Steps between two checkpoints. Being killed costs at most these."""
    log_every: int = 10
    """Steps that one logged value is the mean of."""
    augment: float = 0.0
    """Strength of colour changes, 0 to 1: channel exchange, contrast, tone curve."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(StageConfig):
    """The small autoencoder of the tiny recipe, trained on the dataset's own frames."""

    shift: float = 0.0
    """Largest displacement of a picture, as a share of its side."""
    frames_per_clip: int = 4
    """Frames of a batch that come from one clip: more means fewer clips to decode."""
    test_frames: int = 64
    """Frames of unseen clips on which the PSNR is measured."""


@dataclass(frozen=True, kw_only=True)
class SyncNetConfig(StageConfig):
    """A network that tells whether lips and sound belong together."""

    network: Literal["frame", "stable"]
    """`frame`: FrameSyncNet, learns on a CPU; `stable`: StableSyncNet of the paper."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network."""
    weights: str = ""
    """A published checkpoint to start from (with `steps=0`: to use as it is), or empty."""
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
    """What the U-Net's loss is the sum of (LatentSync, section 3.4). 0 leaves a part out."""

    noise: float = 1.0
    """Squared error of the predicted noise (or of x0, as the scheduler's prediction type)."""
    sync: float = 0.0
    """SyncNet's loss on the decoded x0."""
    lpips: float = 0.0
    """Perceptual distance of the lower half of the decoded x0 by VGG."""
    trepa: float = 0.0
    """Distance of video features of the decoded x0."""
    pixel: float = 0.0
    """Absolute error of the decoded x0 inside the mask."""
    inside: float = 1.0
    """Weight of the repainted cells in `noise`, against 1 for those that are kept."""
    mouth: float = 1.0
    """Weight of the cells around the mouth in `noise`."""

    @property
    def decodes(self) -> bool:
        """Whether any part needs pixels, and so the decoder's gradient."""
        return any((self.sync, self.lpips, self.trepa, self.pixel))


@dataclass(frozen=True, kw_only=True)
class UNetConfig(StageConfig):
    """One stage of training the U-Net."""

    losses: LossWeights = field(default_factory=LossWeights)
    """Parts of the loss."""
    trains: Literal["all", "motion+attention", "motion+attn2"] = "all"
    """Which weights learn: all, motion modules and attentions (the paper's stage 2), or
    motion modules and audio attentions only."""
    motion: dict[str, Any] = field(default_factory=dict)
    """U-Net options that this stage adds to `model.unet`: its motion modules."""
    weights: str = ""
    """A published checkpoint that stage 1 starts from; empty: from fresh weights."""
    lpips_weights: str = ""
    """File or name of LPIPS' VGG; empty: a seeded network of its kind, and a note."""
    trepa_weights: str = ""
    """File, folder or name of the VideoMAE that TREPA compares with."""
    frame_step: int = 1
    """Take every n-th frame of a window: 4 gives many different windows per step."""
    min_distance: int = 16
    """Least distance in frames between target and reference window."""
    windows_per_clip: int = 1
    """Windows of a batch that come from one clip."""
    sound_augment: float = 0.0
    """Strength of changes of loudness, spectral tilt and noise, 0 to 1."""
    swap_surroundings: float = 0.0
    """Chance that the masked picture shows another moment of the clip, so that the mouth
    cannot be read from the jaw and has to be heard."""
    audio_dropout: float = 0.1
    """Chance that a window's audio is replaced by zeros: the unconditional branch."""
    timestep_power: float = 1.0
    """Timesteps are T * u^power with u uniform: below 1 prefers much noise."""
    noise_alpha: float = 1.0
    """How much of the noise all frames share: std sqrt(a^2 / (1 + a^2))."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a training run needs to know besides its dataset and its device."""

    name: str
    """What it was called before any override."""
    model: LatentSyncConfig
    """Networks of the bundle that is trained."""
    autoencoder: AutoencoderConfig | None
    """How the autoencoder is trained; None: published weights, frozen."""
    autoencoder_weights: str = ""
    """Published autoencoder weights, where it is not trained."""
    audio_weights: str = ""
    """Published weights of the audio encoder, where it has any."""
    syncnet: SyncNetConfig
    """The sync network."""
    stage1: UNetConfig
    """The U-Net on noise alone."""
    stage2: UNetConfig
    """The U-Net with motion modules and losses in pixel space."""
    evaluation: EvaluationConfig
    """The short evaluation at the end."""
    seed: int = 1247
    """Of weights, data and noise."""

    @property
    def resolution(self) -> int:
        """Side of the aligned face, pixels."""
        return self.model.resolution

    def stage(self, name: str) -> StageConfig | None:
        """The configuration of one of `STAGES`; None when the recipe has no such stage."""
        found: StageConfig | None = getattr(self, name)
        return found


def recipe(name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """The recipe of that name with the overrides applied.

    Raises:
        UserError: the name or an override is unknown, or a value is of the wrong type.
    """
    from tasks.recipe_values import RECIPES

    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    chosen = RECIPES[name]()
    for path, text in (overrides or {}).items():
        chosen = _replaced(chosen, path.split("."), text, path)
    for stage in STAGES:
        config = chosen.stage(stage)
        if config is not None and (config.batch_size < 1 or config.steps < 0):
            raise UserError(
                f"{stage} needs batch_size of at least 1 and steps of at least 0, got "
                f"{config.batch_size} and {config.steps}"
            )
    return chosen


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """`["stage1.steps=20"]` as `{"stage1.steps": "20"}`.

    Raises:
        UserError: there is no `=` in one of them.
    """
    pairs = {}
    for text in texts:
        path, sign, value = text.partition("=")
        if not sign or not path.strip():
            raise UserError(f"the override {text!r} is not of the form stage1.steps=20")
        pairs[path.strip()] = value.strip()
    return pairs


def _replaced(owner: Any, path: list[str], text: str, whole: str) -> Any:
    """`owner` with the value at `path` replaced by what `text` says."""
    name, rest = path[0], path[1:]
    if isinstance(owner, dict):
        return _replaced_in_dict(owner, path, text, whole)
    if not dataclasses.is_dataclass(owner) or isinstance(owner, type):
        raise UserError(f"the override {whole!r} goes deeper than the recipe: {name!r} is no field")
    known = [each.name for each in dataclasses.fields(owner)]
    if name not in known:
        raise _unknown(name, known, len(path), whole)
    if rest:
        value = _replaced(getattr(owner, name), rest, text, whole)
    else:
        value = _parsed(text, get_type_hints(type(owner))[name], whole)
    try:
        return dataclasses.replace(owner, **{name: value})
    except ValueError as error:
        raise UserError(f"the override {whole!r} cannot be: {error}") from error


def _unknown(name: str, known: list[str], deep: int, whole: str) -> UserError:
    """Names the field that was probably meant, then all.

    Args:
        name: the part of `whole` that is no field.
        known: the fields that are there.
        deep: parts of `whole` from `name` on.
        whole: the override's path.
    """
    hint = "instead"
    if close := difflib.get_close_matches(name, known, n=1):
        parts = whole.split(".")
        parts[len(parts) - deep] = close[0]
        hint = f"did you mean {'.'.join(parts)!r}? Instead"
    fields = ", ".join(known)
    return UserError(f"{whole!r} is not in the recipe: {hint} of {name!r} it has {fields}")


def _replaced_in_dict(
    owner: dict[str, Any], path: list[str], text: str, whole: str
) -> dict[str, Any]:
    name, rest = path[0], path[1:]
    if name not in owner:
        raise _unknown(name, [*owner], len(path), whole)
    old = owner[name]
    if rest:
        return {**owner, name: _replaced(old, rest, text, whole)}
    kind = list if isinstance(old, tuple) else type(old)
    value = _parsed(text, kind, whole)
    return {**owner, name: tuple(value) if isinstance(old, tuple) else value}


def _parsed(text: str, kind: Any, whole: str) -> Any:
    """`text` as a value of type `kind`: numbers, bools, texts, choices, lists and None."""
    origin, options = get_origin(kind), get_args(kind)
    if origin is Literal:
        if text in options:
            return text
        raise UserError(f"{whole} must be one of {', '.join(map(str, options))}, got {text!r}")
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null") and type(None) in options:
            return None
        return _parsed(text, next(each for each in options if each is not type(None)), whole)
    if kind is str:
        return text
    if dataclasses.is_dataclass(kind):
        raise UserError(f"{whole} is a group of fields: override one of them")
    wanted = origin or kind
    try:
        value = json.loads(text.lower() if wanted is bool else text)
    except json.JSONDecodeError:
        raise UserError(f"{whole} must be of type {_name(kind)}, got {text!r}") from None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is tuple and isinstance(value, list):
        return tuple(value)
    if type(value) is not wanted:
        raise UserError(f"{whole} must be of type {_name(kind)}, got {text!r}")
    return value


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
