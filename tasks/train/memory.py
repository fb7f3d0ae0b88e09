"""How much memory a stage will need, before it begins.

The stage's own step is traced with tensors that have shapes and no content (torch's fake tensors),
and what would be alive at once is added up. Nothing is allocated, so the largest networks can be
asked about on the smallest machine.
"""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from tasks.recipes.adapt import AdaptConfig
from tasks.recipes.config import Recipe
from tasks.train.compiled import REPEATED
from tasks.train.drawn import DrawnStage, drawn_stage
from tasks.train.update import DTYPES

GB = 1e9
PROGRAM_GB = {"cpu": 0.6, "cuda": 0.6}
"""Python with its libraries on a processor; on a GPU, CUDA's context and workspaces."""
MOMENTS = 2
"""Numbers that AdamW keeps for each weight."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one worker while it trains a stage, GB (1e9 bytes)."""

    weights: float
    """Of all networks, learned and frozen."""
    gradients: float
    optimizer: float
    """AdamW's moments, and averaged weights."""
    activations: float
    """The most that a forward and backward pass keeps besides."""
    program: float
    clips: float = 0.0
    """Decoded clips that are kept."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(gigabytes for _, gigabytes in self._parts())

    def __str__(self) -> str:
        parts = [f"{name} {gigabytes:.1f}" for name, gigabytes in self._parts()]
        return f"{self.total:.1f} GB: {', '.join(each for each in parts if each[-3:] != '0.0')}"

    def _parts(self) -> list[tuple[str, float]]:
        return [(each.name, getattr(self, each.name)) for each in fields(self)]

    def with_clips(self, gigabytes: float) -> "MemoryEstimate":
        """The same with clips that are kept in memory."""
        return replace(self, clips=gigabytes)


def estimate_memory(
    recipe: Recipe,
    name: str,
    device: torch.device,
    adapter: AdaptConfig | None = None,
    workers: int = 1,
) -> MemoryEstimate:
    """Estimate the memory of one stage.

    Args:
        recipe: what is trained.
        name: one of its stages.
        device: what it will be trained on; nothing is done there.
        adapter: how the model is adapted instead.
        workers: processes that train together, which may have a share of the weights each.
    """
    stage = drawn_stage(recipe, name, torch.device("meta"), adapter)
    modules = (stage.network, *stage.frozen)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(modules)
        weights, learned = sum(map(_size, _tensors(modules))), sum(map(_size, stage.learned))
        peak = _peak(stage, modules, device)
    average = sum(4 * each.numel() for each in stage.learned) if stage.config.ema else 0
    optimizer = sum(MOMENTS * _size(each) for each in stage.learned) + average
    # During the update there are whole gradients but no activations; on a GPU it makes a copy of
    # what it updates.
    update = learned * (2 if device.type == "cuda" else 1)
    most = max(peak, update)
    shares, saved = workers if stage.config.parallel == "fsdp" else 1, 0.0
    if shares > 1:
        # Blocks are put together one after the other; two are whole while the next one travels.
        own = sum(map(_size, _tensors([stage.network])))
        saved = own - own / shares - 2 * _largest_block(stage.network)
    return MemoryEstimate(
        (weights - saved) / GB,
        learned / shares / GB,
        optimizer / shares / GB,
        (most - learned) / GB,
        PROGRAM_GB.get(device.type, PROGRAM_GB["cpu"]),
    )


def what_would_fit(
    recipe: Recipe, name: str, device: torch.device, available_gb: float, workers: int = 1
) -> list[str]:
    """Settings with which a stage would fit, the least costly first; empty if none does.

    Args:
        recipe: what is trained, which does not fit.
        name: one of its stages.
        device: what it will be trained on.
        available_gb: what a worker may use.
        workers: processes that train together.
    """
    config = recipe.stage(name)
    assert config is not None
    found = []
    part = config.micro_batch or config.batch_size
    sizes = [] if name == "autoencoder" else [size for size in (8, 4, 2, 1) if size < part]
    tries: list[dict[str, object]] = [{"micro_batch": size} for size in sizes]
    if getattr(config, "gradient_checkpointing", True) is False:
        tries += [{"gradient_checkpointing": True, **each} for each in ({}, *tries)]
    if workers > 1 and config.parallel == "ddp":
        tries += [{"parallel": "fsdp", **each} for each in ({}, *tries)]
    for changes in tries:
        changed = replace(recipe, **{name: replace(config, **changes)})  # type: ignore[arg-type]
        if estimate_memory(changed, name, device, workers=workers).total <= available_gb:
            found.append(" ".join(f"{name}.{key}={value}" for key, value in changes.items()))
            break
    return found


class _Alive(TorchDispatchMode):
    """Adds up what is alive of all memory that operations have taken."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._seen = {each.untyped_storage()._cdata for each in known}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._see, found)
        return found

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place in self._seen:
            return
        self._seen.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.now -= size


def _peak(stage: DrawnStage, modules: Sequence[nn.Module], device: torch.device) -> int:
    """Bytes that a forward and backward pass takes at once, at most, gradients included."""
    lower = device.type == "cuda" and stage.config.precision != "fp32"
    with _Alive(_tensors(modules)) as alive:
        # A processor's rules of autocast are much like a GPU's, and need none.
        with torch.autocast("cpu", DTYPES[stage.config.precision], enabled=lower):
            loss = stage.loss(stage.part)
        loss.backward()
    return alive.peak


def _largest_block(network: nn.Module) -> float:
    """Bytes of the largest of the parts that fully_shard puts together at once."""
    blocks = [part for part in network.modules() if type(part).__name__ in REPEATED]
    sizes = [sum(map(_size, _tensors([each]))) for each in blocks]
    return max([sum(map(_size, _tensors([network]))) - sum(sizes), *sizes])


def _tensors(modules: Sequence[nn.Module]) -> list[Tensor]:
    """All weights and buffers, each once."""
    found: dict[int, Tensor] = {}
    for module in modules:
        found |= {id(each): each for each in (*module.parameters(), *module.buffers())}
    return list(found.values())


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _make_fake(modules: Sequence[nn.Module]) -> None:
    """Replace the weights of networks by fake tensors of their shapes."""
    fakes: dict[int, Tensor] = {}
    parts = {id(part): part for module in modules for part in module.modules()}
    for part in parts.values():
        for owned in (part._parameters, part._buffers):
            for name, each in owned.items():
                if each is None or isinstance(each, FakeTensor):
                    continue
                if id(each) not in fakes:
                    fakes[id(each)] = torch.empty_like(each, device="cpu")
                    if isinstance(each, nn.Parameter):
                        fakes[id(each)] = nn.Parameter(fakes[id(each)], each.requires_grad)
                owned[name] = fakes[id(each)]  # type: ignore[assignment]
