"""How many workers that train together a Ray cluster has room for."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerRoom:
    """Room for workers in the cluster that this process is connected to."""

    wanted: int
    """Workers that are asked for."""
    gpus: bool
    """Whether each has a GPU."""
    needs: Mapping[str, float]
    """Resources of each."""

    @classmethod
    def of_cluster(cls, wanted: int, gpus: bool) -> "WorkerRoom":
        """Share the cluster out: as many CPUs for each as leave room for all.

        A worker on a GPU gets one CPU.
        """
        found = cls(wanted, gpus, {"CPU": 1, "GPU": 1} if gpus else {"CPU": 1})
        if not gpus:
            for cpus in range(max(1, int(found.total("CPU")) // wanted), 1, -1):
                larger = cls(wanted, gpus, {"CPU": cpus})
                if larger.workers() >= wanted:
                    return larger
        return found

    def total(self, kind: str) -> float:
        """What the living nodes have of a resource, CPU or GPU, whoever uses it."""
        return sum(node.get(kind, 0.0) for node in _nodes())

    def workers(self) -> int:
        """How many of the wanted workers the living nodes could hold."""
        return min(self.wanted, sum(self._fit(node) for node in _nodes()))

    def more(self) -> int:
        """How many more workers there is room for beside everything that runs now."""
        import ray

        return self._fit(ray.available_resources())

    def _fit(self, resources: Mapping[str, float]) -> int:
        return int(min(resources.get(kind, 0.0) // need for kind, need in self.needs.items()))


def _nodes() -> list[Mapping[str, float]]:
    """The resources of the living nodes."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
