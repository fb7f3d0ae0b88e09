"""The report of a whole run as one HTML page that needs nothing else.

Pictures and videos are inside the page, so it can be sent around. No scripts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from tasks.pages.html import bars, cards, data_uri, image, page, section
from tasks.registry.metric import Metric


@dataclass
class Report:
    """Everything the page shows. What is empty is left out."""

    title: str
    lead: str
    cards: list[tuple[str, str]] = field(default_factory=list)
    """(number, what it is)."""
    videos: list[tuple[str, Path]] = field(default_factory=list)
    """(caption, mp4)."""
    mouth_plot: bytes = b""
    funnel: list[tuple[str, int, str]] = field(default_factory=list)
    """(name, count, class of the bar: good, bad or empty)."""
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
    parts = [
        f"<h1>{escape(report.title)}</h1><p class='lead'>{escape(report.lead)}</p>",
        cards(report.cards),
        _videos(report.videos, report.mouth_plot),
        section(
            "Ingestion",
            "What became of the input files. Every clip that is not used has a reason.",
            bars([(name, count, str(count), kind) for name, count, kind in report.funnel]),
        ),
        section(
            "Audio offset",
            "How late the audio of each accepted clip was, before it was corrected.",
            image(report.offsets, "histogram of audio offsets"),
        ),
        section(
            "Training",
            "Loss of each stage over its steps.",
            image(report.curves, "loss curves"),
        ),
        _metrics(report),
        _decisions(report.decisions),
        section(
            "Time",
            "",
            bars([(name, value, f"{value:.0f} s", "") for name, value in report.seconds.items()]),
        ),
        _paths(report.paths),
    ]
    return page(report.title, "".join(parts))


def _videos(videos: Sequence[tuple[str, Path]], plot: bytes) -> str:
    figures = "".join(
        "<figure><video controls loop playsinline "
        f"src='{data_uri(path.read_bytes(), 'video/mp4')}'></video>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, path in videos
    )
    body = f"<div class='pair'>{figures}</div>" if figures else ""
    if plot:
        body += "<p></p>" + image(plot, "mouth opening and loudness over time")
    return section(
        "The same person, other words",
        "The input and what the promoted model made of it, driven by speech that was in no "
        "training clip.",
        body,
    )


def number_text(value: float | None) -> str:
    """A metric's value for reading."""
    return "–" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def measured_by(entry: Metric) -> str:
    """A metric's label, and why there is no value where there is none."""
    reason = entry.get("reason", "")
    return f"{entry['label']} (no value: {reason})" if reason else entry["label"]


def _metrics(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class='number'>{number_text(entry['value'])}</td>"
        f"<td class='number'>{entry['n']}</td><td class='label'>{escape(measured_by(entry))}</td>"
        "</tr>"
        for name, entry in report.metrics.items()
    )
    table = (
        "<div class='wide'><table><tr><th>metric</th><th class='number'>value</th>"
        f"<th class='number'>n</th><th>measured by</th></tr>{rows}</table></div>"
        if rows
        else ""
    )
    pictures = "".join(
        f"<p></p>{picture}"
        for picture in (
            image(report.evaluation_plots, "plots of the evaluation"),
            image(report.contact_sheet, "contact sheet of test clips"),
        )
        if picture
    )
    return section(
        "Evaluation",
        "Clips of speakers that were not trained on. Numbers whose label says that the official "
        "weights were not used compare runs of this project with each other and nothing else.",
        table + pictures,
    )


def _decisions(decisions: Sequence[dict[str, Any]]) -> str:
    parts = []
    for decision in decisions:
        against = decision["champion_before"]
        other = "no champion yet" if against is None else f"against champion version {against}"
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in decision["reasons"])
        parts.append(
            f"<p><b>{escape(decision['model'])} version {decision['candidate']}</b>, "
            f"{other}: <span class='verdict {decision['verdict']}'>{decision['verdict']}</span></p>"
            f"<ul>{reasons}</ul>{_comparisons(decision['comparisons'])}"
        )
    return section("Decisions", "Which model is in use, and why.", "".join(parts))


def _comparisons(comparisons: Sequence[dict[str, Any]]) -> str:
    if not comparisons or all(each["champion"] is None for each in comparisons):
        return ""
    rows = "".join(
        f"<tr><td>{escape(each['metric'])}</td>"
        f"<td class='number'>{number_text(each['candidate'])}</td>"
        f"<td class='number'>{number_text(each['champion'])}</td>"
        f"<td>{'holds' if each['holds'] else 'fails'}</td></tr>"
        for each in comparisons
    )
    return (
        "<div class='wide'><table><tr><th>metric</th><th class='number'>candidate</th>"
        f"<th class='number'>champion</th><th>rule</th></tr>{rows}</table></div>"
    )


def _paths(paths: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(what)}</td><td><code>{escape(where)}</code></td></tr>"
        for what, where in paths
    )
    return section("Files", "", f"<div class='wide'><table>{rows}</table></div>" if rows else "")
