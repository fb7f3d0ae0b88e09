"""Curves that training writes: one JSON object a line, with `step` and values."""

import json
from pathlib import Path


def read_curve(path: Path) -> list[dict[str, float]]:
    """The points of a stage's `metrics.jsonl`; empty if there is no such file."""
    if not path.is_file():
        return []
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            points.append(json.loads(line))
        except json.JSONDecodeError:
            # The incomplete last line of a killed run.
            break
    return points
