"""How many workers of a stage a cluster has room for."""

from datasets.errors import UserError
from tasks.runtime.stage import Resources

MOST_PER_GPU = 16
"""Most workers that share a GPU."""


def fitting_workers(need: Resources, wanted: int | None) -> int:
    """How many workers of a stage run at once.

    Raises:
        UserError: even an empty cluster would have no room for `wanted` workers (or for one).
    """
    needs = _needs(need)
    fit = room(need)
    if wanted is not None and wanted < 1:
        raise UserError(f"the number of workers must be 1 or more, got {wanted}")
    if not needs:
        # Workers that wait rather than compute: as many as one likes.
        return wanted or fit
    if fit < (wanted or 1):
        import ray

        total = ray.cluster_resources()
        nodes = [node for node in ray.nodes() if node["Alive"]]
        asked = ", ".join(_amount(kind, amount) for kind, amount in needs.items())
        has = ", ".join(_amount(kind, total.get(kind, 0.0)) for kind in needs)
        raise UserError(
            f"{wanted or 1} worker(s) of {asked} each do not fit: Ray has {has} in {len(nodes)} "
            f"node(s), enough for {fit}; use fewer workers or a larger cluster"
        )
    return wanted or fit


def gpu_share_of_core() -> float:
    """Share of a GPU for a worker with one CPU, so that all cores of the cluster have work.

    Each worker has its own copy of the network on the GPU, so it is at least a sixteenth.
    """
    import ray

    total = ray.cluster_resources()
    return max(1 / MOST_PER_GPU, min(1.0, total.get("GPU", 0.0) / max(total.get("CPU", 1.0), 1.0)))


def room(need: Resources) -> int:
    """How many workers would fit into the empty cluster; a worker lives on one node."""
    import ray

    needs = _needs(need)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        min((int(node.get(kind, 0.0) / amount + 1e-9) for kind, amount in needs.items()), default=1)
        for node in nodes
    )


def _needs(need: Resources) -> dict[str, float]:
    """The resources by Ray's names."""
    needs = {"CPU": need.cpus, "GPU": need.gpus, "memory": float(need.memory_bytes)}
    return {kind: amount for kind, amount in needs.items() if amount > 0}


def _amount(kind: str, amount: float) -> str:
    return f"{amount / 2**30:.1f} GiB memory" if kind == "memory" else f"{amount:g} {kind}"
