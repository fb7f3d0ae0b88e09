"""The report of a whole run as one self-contained HTML page.

Pictures and videos are inside the page, so it can be sent around. No scripts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.pages import html
from tasks.pages.funnel import Step
from tasks.registry.metric import Metric


@dataclass
class Report:
    """Everything the page shows. Empty parts are left out."""

    title: str
    lead: str
    cards: list[tuple[str, str]] = field(default_factory=list)
    """(number, what it is)."""
    videos: list[tuple[str, Path]] = field(default_factory=list)
    """(caption, mp4)."""
    mouth_plot: bytes = b""
    funnel: list[Step] = field(default_factory=list)
    offsets: bytes = b""
    curves: bytes = b""
    metrics: dict[str, Metric] = field(default_factory=dict)
    evaluation_plots: bytes = b""
    contact_sheet: bytes = b""
    decisions: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    paths: list[tuple[str, str]] = field(default_factory=list)
    """(what, where)."""


def render(report: Report) -> str:
    """The page."""
    return html.render(
        "demo/report.html",
        title=report.title,
        report=report,
        videos=[(caption, path.read_bytes()) for caption, path in report.videos],
        funnel=[(each.name, each.count, str(each.count), each.kind) for each in report.funnel],
        metrics=[
            (name, number_text(entry["value"]), entry["n"], measured_by(entry))
            for name, entry in report.metrics.items()
        ],
        decisions=[(each, _comparisons(each["comparisons"])) for each in report.decisions],
        seconds=[(name, value, f"{value:.0f} s", "") for name, value in report.seconds.items()],
    )


def number_text(value: float | None) -> str:
    """A metric's value for reading."""
    return "–" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def measured_by(entry: Metric) -> str:
    """A metric's label, and why its value is missing if it is."""
    reason = entry.get("reason", "")
    return f"{entry['label']} (no value: {reason})" if reason else entry["label"]


def _comparisons(comparisons: Sequence[dict[str, Any]]) -> list[Sequence[str]]:
    """Metric, both values and the rule; empty cells if there was no champion."""
    if all(each["champion"] is None for each in comparisons):
        return []
    return [
        (
            each["metric"],
            number_text(each["candidate"]),
            number_text(each["champion"]),
            "holds" if each["holds"] else "fails",
        )
        for each in comparisons
    ]
