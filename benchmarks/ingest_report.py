"""From measurements to figures and their table."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.ingest_chain import ChainResult
from benchmarks.ingest_floor import Source
from benchmarks.ingest_ours import FlowRun, StageRun
from benchmarks.ingest_where import lines
from datasets.media import FPS

BARS = {
    "chain / ours": (5.0, "at least"),
    "ours / floor": (1.3, "at most"),
    "ours / decode, large videos": (4.0, "at most"),
    "bytes written / bytes of shards": (1.2, "at most"),
}
BUSY_BAR = 85.0


@dataclass(frozen=True)
class Inputs:
    """The files of a run."""

    paths: list[Path]
    """All files, the largest first."""
    names: Mapping[str, str]
    """Path -> path below the folder."""
    sources: list[Source]
    """The files that must be decoded."""
    large: list[Source]


@dataclass
class Measured:
    """The fastest run of each part."""

    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    """Of the same run as the wall time, like the following ones."""
    others_percent: dict[str, float] = field(default_factory=dict)
    """Share of all cores that other processes used meanwhile."""
    frames: int = 0
    """At 25 fps, of all sources together."""
    source_frames: int = 0
    """Frames at the sources' own rates."""
    flow: FlowRun | None = None
    stage: StageRun | None = None
    chain: ChainResult | None = None
    where: dict[str, float] = field(default_factory=dict)

    def note(self, key: str, wall_s: float, cpu_s: float, others: float) -> bool:
        """Keep a time if it is the fastest so far; returns whether it is."""
        if wall_s >= self.wall_s.get(key, float("inf")):
            return False
        self.wall_s[key], self.cpu_s[key], self.others_percent[key] = wall_s, cpu_s, others
        return True


def figures(measured: Measured, inputs: Inputs, processes: int) -> dict[str, Any]:
    """Everything to print and write as JSON; all numbers are finite."""
    flow, stage, chain = measured.flow, measured.stage, measured.chain
    assert flow is not None
    assert stage is not None
    assert chain is not None
    ratios = _ratios(measured.wall_s)
    per_cpu = _ratios(measured.cpu_s)
    work_s = measured.wall_s["ours, stage"]
    ratios |= {
        "chain that copies 25 fps / ours": _copying(chain) / work_s,
        "chain that detects again / ours": (chain.total_s + chain.again_s) / work_s,
    }
    if flow.shard_bytes:
        ratios["bytes written / bytes of shards"] = flow.written["work"] / flow.shard_bytes
    ours, theirs = _outputs(flow.clips), _outputs(chain.clips)
    return {
        "machine": {
            "cores": os.cpu_count(),
            "processes": processes,
            "others_percent": measured.others_percent,
        },
        "inputs": {
            "files": len(inputs.paths),
            "decoded_files": len(inputs.sources),
            "large_files": len(inputs.large),
            "frames": measured.source_frames,
            "frames_at_25_fps": measured.frames,
            "landmark_frames_ours": stage.landmark_frames or measured.frames,
        },
        "wall_s": measured.wall_s,
        "cpu_s": measured.cpu_s,
        "chain_wall_s": chain.seconds,
        "chain_variants_s": {"resample_copying": chain.copying_s, "detect_again": chain.again_s},
        "outputs": {
            "ours": ours,
            "chain": theirs,
            "seconds_ratio": ours["seconds"] / max(theirs["seconds"], 1 / FPS),
            "by_file": _by_file(flow, chain, inputs),
        },
        "ratios": ratios,
        "ratios_of_cpu_time": per_cpu,
        "use": {
            "cores_busy_percent": 100 * stage.cpu_s / (stage.seconds * processes),
            "clips_per_second": stage.clips / stage.seconds,
            "video_s_per_s_per_core": stage.video_seconds / stage.seconds / processes,
        },
        "bytes": {
            "shards": flow.shard_bytes,
            "spare_tars": flow.spare_bytes,
            "written": flow.written,
        },
        "profile_s": measured.where,
    }


def _ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    stage = seconds["ours, stage"]
    ratios = {
        "chain / ours": seconds["chain"] / stage,
        "chain / our whole command": seconds["chain"] / seconds["ours, command"],
        "ours / floor": stage / seconds["floor"],
        "ours / floor of regions": stage / seconds["floor, regions"],
        "ours / decode": stage / seconds["decode"],
    }
    if "ours, large" in seconds:
        ratios["ours / decode, large videos"] = seconds["ours, large"] / seconds["decode, large"]
    return ratios


def _copying(chain: ChainResult) -> float:
    return chain.total_s - chain.seconds["resample"] + chain.copying_s


def _outputs(clips: Mapping[str, list[int]]) -> dict[str, float]:
    frames = sum(sum(each) for each in clips.values())
    return {"clips": sum(len(each) for each in clips.values()), "seconds": frames / FPS}


def _by_file(flow: FlowRun, chain: ChainResult, inputs: Inputs) -> dict[str, dict[str, list[int]]]:
    """Frames of the clips of each file for which either side has clips."""
    theirs = {inputs.names[path]: frames for path, frames in chain.clips.items()}
    names = sorted(set(flow.clips) | set(theirs))
    return {
        name: {"ours": flow.clips.get(name, []), "chain": theirs.get(name, [])} for name in names
    }


def table(found: dict[str, Any]) -> str:
    """The report for people."""
    return "\n".join(_table(found))


def _table(found: dict[str, Any]) -> Iterator[str]:
    inputs, outputs, use = found["inputs"], found["outputs"], found["use"]
    yield ""
    yield (
        f"{inputs['files']} files, {inputs['decoded_files']} with video and sound, "
        f"{inputs['frames_at_25_fps']} frames at 25 fps; {found['machine']['processes']} processes"
    )
    others = found["machine"]["others_percent"]
    yield f"{'part':44s} {'wall':>9s} {'CPU':>9s} {'others':>9s}"
    for name, seconds in found["wall_s"].items():
        cpu = found["cpu_s"][name]
        yield f"{name:44s} {seconds:8.2f}s {cpu:8.2f}s {others[name]:8.0f}%"
    for name, seconds in found["chain_wall_s"].items():
        yield f"  {'chain: ' + name:42s} {seconds:8.2f}s"
    for name, seconds in found["chain_variants_s"].items():
        yield f"  {'next to the chain: ' + name:42s} {seconds:8.2f}s"
    yield f"{'outputs':44s} {'clips':>9s} {'seconds':>9s}"
    for name in ("ours", "chain"):
        yield f"{name:44s} {outputs[name]['clips']:9d} {outputs[name]['seconds']:9.2f}"
    for name, both in outputs["by_file"].items():
        if sum(both["ours"]) != sum(both["chain"]) or len(both["ours"]) != len(both["chain"]):
            yield f"  {name:42s} frames: ours {both['ours']}, chain {both['chain']}"
    yield f"{'figure':44s} {'wall':>9s} {'CPU':>9s}"
    for name, value in found["ratios"].items():
        cpu = found["ratios_of_cpu_time"].get(name)
        yield f"{name:44s} {value:8.2f}x {'' if cpu is None else f'{cpu:.2f}x':>9s}{_wanted(name)}"
    yield f"{'cores busy':44s} {use['cores_busy_percent']:8.1f}%  at least {BUSY_BAR:g} wanted"
    yield f"{'clips per second':44s} {use['clips_per_second']:9.2f}"
    yield f"{'video seconds per second per core':44s} {use['video_s_per_s_per_core']:9.2f}"
    for name, value in found["bytes"]["written"].items():
        yield f"{'MB written by ' + name:44s} {value / 1e6:9.2f}"
    for name in ("shards", "spare_tars"):
        yield f"{'MB of ' + name.replace('_', ' '):44s} {found['bytes'][name] / 1e6:9.2f}"
    yield "where the time of our stage goes (one process)"
    yield from lines(found["profile_s"])


def _wanted(name: str) -> str:
    if name not in BARS:
        return ""
    value, words = BARS[name]
    return f"  {words} {value:g} wanted"
