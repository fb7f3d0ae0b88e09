"""The page about several models: numbers, differences, parts of the clips, and videos."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets.store.atomic import write_atomic
from tasks.evaluate.comparison import (
    BETTER,
    ComparedModel,
    Difference,
    paired_differences,
    rank_clips,
)
from tasks.evaluate.side_by_side import side_by_side
from tasks.pages.html import render
from tasks.registry.metric import Metric

PAGE, FACTS = "comparison.html", "comparison.json"
SHOWN_CLIPS = 8
"""Clips whose videos are on the page; a page with more is slow to open."""
LONGEST_NAME = 24
"""Characters of a name that fits above a column."""
STRATA_METRICS = ("sync_c", "mouth_z", "follows", "ssim_mouth", "flicker", "identity")
"""Metrics in the tables of parts."""


def write_comparison(output: Path, models: Sequence[ComparedModel]) -> dict[str, Any]:
    """Write `comparison.html` and `comparison.json`.

    Args:
        output: their folder.
        models: two or more; differences are to the first.

    Returns:
        What the JSON file holds.
    """
    differences = {other.name: paired_differences(models[0], other) for other in models[1:]}
    metric, ranked = rank_clips(models)
    facts = {
        "models": [each.name for each in models],
        "protocol_digest": models[0].evaluation["protocol_digest"],
        "metrics": {each.name: each.evaluation["metrics"] for each in models},
        "differences": {
            name: {each.metric: {**each.entry, "verdict": each.verdict} for each in found}
            for name, found in differences.items()
        },
        "ranked_by": metric,
        "clips": [
            {"clip_id": clip, "values": [_json(each) for each in values]} for clip, values in ranked
        ],
    }
    names = short_names([each.name for each in models])
    page = render(
        "evaluate/comparison.html",
        models=names,
        places=[[short, each.name] for short, each in zip(names, models, strict=True)],
        clips=len(ranked),
        warnings=list(
            dict.fromkeys(w for each in models for w in each.evaluation.get("warnings", []))
        ),
        numbers=[*_numbers(models)],
        differences={
            short: [*_differences(differences[each.name])]
            for short, each in zip(names[1:], models[1:], strict=True)
        },
        strata=[*_strata(models)],
        ranked_by=metric,
        videos=[*_videos(models, ranked[:SHOWN_CLIPS])],
    )
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(output / PAGE, page)
    write_atomic(output / FACTS, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return facts


def short_names(names: Sequence[str]) -> list[str]:
    """What tells models apart, for the heads of columns: paths and addresses without the parts
    that all have at their beginning and end; the names themselves if they are short."""
    if max(map(len, names)) <= LONGEST_NAME:
        return list(names)
    parts = [each.rstrip("/").split("/") for each in names]
    alike = [len(set(column)) == 1 for column in zip(*parts, strict=False)]
    first = alike.index(False) if False in alike else len(alike) - 1
    back = [len(set(column)) == 1 for column in zip(*(each[::-1] for each in parts), strict=False)]
    last = back.index(False) if False in back else 0
    found = ["/".join(each[first : len(each) - last]) for each in parts]
    return found if all(found) and len(set(found)) == len(names) else list(names)


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(entry: Metric | None, sign: bool = False) -> str:
    """A number with its interval, or why there is none."""
    if entry is None or entry["value"] is None:
        return "none"
    form = "{:+.4g}" if sign else "{:.4g}"
    text = form.format(entry["value"])
    if "low" in entry and "high" in entry:
        text += f" [{form.format(entry['low'])}, {form.format(entry['high'])}]"
    return text


def _numbers(models: Sequence[ComparedModel]) -> Iterator[list[str]]:
    """Rows: metric, each model's number, which way is better, by what it is measured."""
    for name, entry in models[0].evaluation["metrics"].items():
        values = [_text(each.evaluation["metrics"].get(name)) for each in models]
        yield [name, *values, BETTER.get(name, ""), f"{entry['label']}, n = {entry['n']}"]


def _differences(found: Sequence[Difference]) -> Iterator[list[str]]:
    """Rows: metric, difference, verdict, number of clips."""
    for each in found:
        if each.entry["value"] is not None:
            yield [each.metric, _text(each.entry, True), each.verdict, str(each.entry["n"])]


def _strata(models: Sequence[ComparedModel]) -> Iterator[tuple[str, list[list[str]]]]:
    """Stratum, and rows: part, clips, metric, each model's number."""
    strata = [each.evaluation.get("strata", {}) for each in models]
    for stratum, parts in strata[0].items():
        rows = []
        for part, metrics in parts.items():
            for name in STRATA_METRICS:
                entries = [each.get(stratum, {}).get(part, {}).get(name) for each in strata]
                if any(entry and entry["value"] is not None for entry in entries):
                    numbers = [_text(each) for each in entries]
                    rows.append([part, str(metrics[name]["n"]), name, *numbers])
        if rows:
            yield stratum, rows


def _videos(
    models: Sequence[ComparedModel], ranked: Sequence[tuple[str, list[float]]]
) -> Iterator[tuple[str, list[str], bytes]]:
    """Clip, each model's value, and the mp4."""
    for clip, values in ranked:
        paths = [each.folder / "cross" / f"{clip}.mp4" for each in models]
        texts = [f"{each:.4g}" if math.isfinite(each) else "none" for each in values]
        yield clip, texts, side_by_side(paths)
