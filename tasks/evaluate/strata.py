"""The same numbers for parts of the clips: by size and yaw of the face, share of speech, language
and speaker, where the dataset knows them.

A mean over all clips hides that a model fails on small or turned faces. Edges are fixed, so that
the tables of two datasets have the same rows. Distances of sets are left out: a part of the clips
has far too few pictures for them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.evaluate.measurement import MODEL, ClipRecord
from tasks.evaluate.summary import summarise
from tasks.evaluate.table import Facts
from tasks.registry.metric import Metric, Strata

EDGES: Mapping[str, tuple[tuple[float, ...], str]] = {
    "face_px": ((128, 256), " px"),
    "yaw_deg": ((15, 30), "°"),
    "speech_share": ((0.5, 0.8), ""),
}
"""Column of the dataset -> the edges of its parts, and their unit."""
COLUMNS = (*EDGES, "language")
DRAWS = 200
"""Of a bootstrap: there are many tables, and their ends need not be as exact."""


def part_of(column: str, value: float) -> str:
    """The name of the part that a value belongs to; a value on an edge is in the upper part."""
    edges, unit = EDGES[column]
    above = int(np.searchsorted(edges, value, side="right"))
    if above == 0:
        return f"below {edges[0]:g}{unit}"
    if above == len(edges):
        return f"{edges[-1]:g}{unit} and more"
    return f"{edges[above - 1]:g} to {edges[above]:g}{unit}"


def _order(column: str, part: str) -> tuple[int, str]:
    """Parts from small to large; others by name."""
    if column not in EDGES:
        return 0, part
    edges, _ = EDGES[column]
    # Each edge lies in the part above it.
    ordered = [part_of(column, value) for value in (edges[0] - 1, *edges)]
    return ordered.index(part), part


def group(records: Sequence[ClipRecord], facts: Facts) -> dict[str, dict[str, list[int]]]:
    """Stratum -> part -> positions of its clips; a stratum of which nothing is known is absent."""
    found: dict[str, dict[str, list[int]]] = {}
    for position, record in enumerate(records):
        known = facts.get(record.clip_id, {})
        parts = {name: part_of(name, float(known[name])) for name in EDGES if name in known}
        if "language" in known:
            parts["language"] = str(known["language"])
        for name, part in {**parts, "speaker": record.speaker}.items():
            found.setdefault(name, {}).setdefault(part, []).append(position)
    return {
        name: {part: parts[part] for part in sorted(parts, key=lambda each: _order(name, each))}
        for name, parts in found.items()
    }


def stratify(records: Sequence[ClipRecord], facts: Facts, note: str, cross: str) -> Strata:
    """Stratum -> part -> the judged model's numbers over the part's clips."""
    strata: Strata = {}
    for name, parts in group(records, facts).items():
        strata[name] = {}
        for part, positions in parts.items():
            chosen = [records[each] for each in positions]
            summary = summarise(
                chosen[0].labels,
                [each.speaker for each in chosen],
                [each.models[MODEL] for each in chosen],
                note,
                cross,
                DRAWS,
            )
            strata[name][part] = summary.of_clips()
    return strata


def strata_rows(strata: Strata) -> list[dict[str, object]]:
    """As rows: stratum, part, metric, value, the ends of its interval, n."""
    rows: list[dict[str, object]] = []
    for name, parts in strata.items():
        for part, metrics in parts.items():
            rows += [_row(name, part, each, entry) for each, entry in metrics.items()]
    return rows


def _row(stratum: str, part: str, name: str, entry: Metric) -> dict[str, object]:
    ends = {each: entry.get(each) for each in ("low", "high")}
    return {
        "stratum": stratum,
        "part": part,
        "metric": name,
        "value": entry["value"],
        **ends,
        "n": entry["n"],
    }
