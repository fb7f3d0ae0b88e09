"""Whether a training fits into memory, said before it begins."""

from pathlib import Path

import psutil
import torch

from datasets.errors import UserError
from datasets.shards.clips import MEMORY_BYTES, ClipStore, decoded_bytes
from tasks.recipes.config import Recipe, StageConfig, SyncNetConfig
from tasks.train.memory import GB, MemoryEstimate, estimate_memory, what_would_fit
from tasks.train.stages import TrainingJob, remaining

ERROR = 0.15
"""How far the estimates may be off: what is refused is larger by more than that."""
CGROUP = Path("/sys/fs/cgroup/memory.max")


def memory_of(
    job: TrainingJob, workers: int, elsewhere: bool = False
) -> tuple[dict[str, MemoryEstimate], list[str]]:
    """What the stages that remain need, and warnings.

    Args:
        job: the training.
        workers: processes that train together.
        elsewhere: they run on other machines, of whose memory nothing is known here.

    Raises:
        UserError: a stage cannot fit.
    """
    device = torch.device(job.device)
    found = stage_memory(job.recipe, remaining(job), device, job.dataset, workers)
    if elsewhere or device.type not in ("cpu", "cuda"):
        return found, []
    return found, check_room(job.recipe, found, device, workers, available_gb(device))


def stage_memory(
    recipe: Recipe,
    names: list[str],
    device: torch.device,
    dataset: Path | str,
    workers: int = 1,
) -> dict[str, MemoryEstimate]:
    """What each worker will need for each stage.

    Args:
        recipe: what is trained.
        names: its stages that remain.
        device: what they are trained on.
        dataset: whose clips may be kept in memory.
        workers: processes that train together.
    """
    clips = ClipStore(dataset, split="train", memory_bytes=0).clips
    found = {}
    for name in names:
        config = recipe.stage(name)
        assert config is not None
        estimate = estimate_memory(recipe, name, device, workers=workers)
        decoded = decoded_bytes(clips, _resolution(recipe, config))
        # On a GPU they lie in the machine's memory.
        if device.type == "cpu" and config.reader != "stream":
            kept = decoded if config.reader == "memory" else decoded * (decoded <= MEMORY_BYTES)
            estimate = estimate.with_clips(min(kept, MEMORY_BYTES) / GB)
        found[name] = estimate
    return found


def check_room(
    recipe: Recipe,
    estimates: dict[str, MemoryEstimate],
    device: torch.device,
    workers: int,
    available_gb: float,
) -> list[str]:
    """Check that every stage fits; returns warnings about those that may not.

    Args:
        recipe: what is trained.
        estimates: of `stage_memory`.
        device: what it is trained on.
        workers: processes that train together; on a processor they share its memory.
        available_gb: free memory of the machine, or of one GPU.

    Raises:
        UserError: a stage cannot fit.
    """
    each = available_gb / (workers if device.type == "cpu" else 1)
    notes = []
    for name, estimate in estimates.items():
        if estimate.total <= each:
            continue
        told = (
            f"{name} needs about {estimate} for each worker, and {each:.1f} GB of this "
            f"{'machine' if device.type == 'cpu' else 'GPU'}'s memory are free for it"
        )
        if estimate.total * (1 - ERROR) <= each:
            notes.append(f"{told}: it may not fit")
            continue
        config = recipe.stage(name)
        assert config is not None
        other = what_would_fit(recipe, name, device, each - estimate.clips, workers)
        if estimate.clips and estimate.total - estimate.clips <= each:
            other = [f"{name}.reader=stream", *other]
        advice = "a smaller recipe or a larger machine is needed"
        if other:
            advice = f"it would fit with --overrides {' or '.join(other)}"
        raise UserError(f"{told}: {advice}")
    return notes


def available_gb(device: torch.device) -> float:
    """Free memory of the machine, or of a GPU, GB."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GB
    memory = psutil.virtual_memory()
    free = memory.available
    try:
        limit = int(CGROUP.read_text())
    except (OSError, ValueError):
        return free / GB
    return min(free, limit) / GB


def _resolution(recipe: Recipe, config: StageConfig) -> int:
    return config.resolution if isinstance(config, SyncNetConfig) else recipe.resolution
