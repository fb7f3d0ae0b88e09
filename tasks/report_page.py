"""The report of a whole run as one HTML page that needs nothing else.

Pictures and videos are inside the page, so it can be sent around. No scripts.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from tasks.metrics import Metric

STYLE = """
:root { --ink: #1d2733; --soft: #5b6875; --line: #dde3ea; --paper: #ffffff; --back: #f4f6f9;
  --accent: #2f6fde; --good: #2c8a5c; --bad: #c2452d; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 0 0 6px; }
p.lead, p.note { color: var(--soft); margin: 0 0 14px; max-width: 75ch; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 22px 24px; margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 18px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.card b { display: block; font-size: 24px; letter-spacing: -0.01em; }
.card span { color: var(--soft); font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 18px; }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 6px; }
img, video { max-width: 100%; height: auto; border-radius: 6px; display: block; }
video { width: 100%; background: #000; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.label { color: var(--soft); }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 7px 12px;
  align-items: center; font-size: 14px; }
.bar { height: 14px; border-radius: 4px; background: var(--accent); min-width: 2px; }
.bar.good { background: var(--good); } .bar.bad { background: var(--bad); }
.verdict { display: inline-block; padding: 1px 10px; border-radius: 99px; color: #fff;
  font-size: 13px; background: var(--bad); }
.verdict.promoted { background: var(--good); }
ul { margin: 8px 0 14px; padding-left: 20px; }
code { font-size: 13px; background: var(--back); padding: 1px 5px; border-radius: 4px; }
"""


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
        _cards(report.cards),
        _videos(report.videos, report.mouth_plot),
        _section(
            "Ingestion",
            "What became of the input files. Every clip that is not used has a reason.",
            _bars([(name, count, str(count), kind) for name, count, kind in report.funnel]),
        ),
        _section(
            "Audio offset",
            "How late the audio of each accepted clip was, before it was corrected.",
            _image(report.offsets, "histogram of audio offsets"),
        ),
        _section(
            "Training",
            "Loss of each stage over its steps.",
            _image(report.curves, "loss curves"),
        ),
        _metrics(report),
        _decisions(report.decisions),
        _section(
            "Time",
            "",
            _bars([(name, value, f"{value:.0f} s", "") for name, value in report.seconds.items()]),
        ),
        _paths(report.paths),
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(part for part in parts if part)}</main></body></html>\n"
    )


def _section(title: str, note: str, body: str) -> str:
    if not body:
        return ""
    remark = f"<p class='note'>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{remark}{body}</section>"


def _data(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _image(content: bytes, alt: str) -> str:
    if not content:
        return ""
    return f"<div class='wide'><img alt='{escape(alt)}' src='{_data(content, 'image/png')}'></div>"


def _cards(cards: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f"<div class='card'><b>{escape(number)}</b><span>{escape(what)}</span></div>"
        for number, what in cards
    )
    return f"<div class='cards'>{items}</div>" if items else ""


def _videos(videos: Sequence[tuple[str, Path]], plot: bytes) -> str:
    figures = "".join(
        f"<figure><video controls loop playsinline src='{_data(path.read_bytes(), 'video/mp4')}'>"
        f"</video><figcaption>{escape(caption)}</figcaption></figure>"
        for caption, path in videos
    )
    body = f"<div class='pair'>{figures}</div>" if figures else ""
    if plot:
        body += "<p></p>" + _image(plot, "mouth opening and loudness over time")
    return _section(
        "The same person, other words",
        "The input and what the promoted model made of it, driven by speech that was in no "
        "training clip.",
        body,
    )


def _bars(rows: Sequence[tuple[str, float, str, str]]) -> str:
    """Bars (name, length, text, class), the longest one filling the width."""
    if not rows:
        return ""
    longest = max(max(value for _, value, _, _ in rows), 1e-9)
    items = "".join(
        f"<span>{escape(name)}</span>"
        f"<div class='bar {kind}' style='width:{100 * value / longest:.1f}%'></div>"
        f"<span>{escape(text)}</span>"
        for name, value, text, kind in rows
    )
    return f"<div class='bars'>{items}</div>"


def number_text(value: float | None) -> str:
    """A metric's value for reading."""
    return "–" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _metrics(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class='number'>{number_text(entry['value'])}</td>"
        f"<td class='number'>{entry['n']}</td><td class='label'>{escape(entry['label'])}</td></tr>"
        for name, entry in report.metrics.items()
    )
    table = (
        "<div class='wide'><table><tr><th>metric</th><th class='number'>value</th>"
        f"<th class='number'>n</th><th>measured by</th></tr>{rows}</table></div>"
        if rows
        else ""
    )
    pictures = "".join(
        f"<p></p>{image}"
        for image in (
            _image(report.evaluation_plots, "plots of the evaluation"),
            _image(report.contact_sheet, "contact sheet of test clips"),
        )
        if image
    )
    return _section(
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
    return _section("Decisions", "Which model is in use, and why.", "".join(parts))


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
    return _section("Files", "", f"<div class='wide'><table>{rows}</table></div>" if rows else "")
