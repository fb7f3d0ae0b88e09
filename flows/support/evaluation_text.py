"""An evaluation as lines for the person who waited: a table, caveats, and files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.evaluate.lse import RESULT
from tasks.evaluate.run import CONTACT_SHEET, EVALUATION, PLOTS
from tasks.registry.metric import Evaluation, Metric

MAIN = (
    "sync_c",
    "sync_d",
    "follows",
    "mouth_offset",
    "mouth_z",
    "leak_opening",
    "leak_moving",
    "leak_correlation",
    "closed",
    "fid",
    "fvd",
    "ssim_mouth",
    "lmd",
)
"""The numbers that promotion looks at, shown at the end of a training run."""
SHARES = ("sync_accuracy", "in_sync_share", "faces_found", "follows", "leak_moving", "closed")
UNITS = {"sync_offset": "frames", "mouth_offset": "frames", "psnr_db": "dB"}
COUNTED = {
    "fid": "frames",
    **dict.fromkeys(("fvd", "fvd_latentsync", "cd_fvd", "motion_mmd"), "windows"),
    **dict.fromkeys(("lse_c", "lse_d"), "videos"),
}
"""What `n` counts where it is not clips."""
VERDICTS = ("better", "worse")
"""Of differences whose interval leaves out 0."""


def value_text(name: str, value: float | None) -> str:
    """A metric's value, rounded, with its unit; `none` where it has no value."""
    if value is None:
        return "none"
    if name.removesuffix("_real") in SHARES:
        return f"{value:.0%}"
    if name.startswith("lmd"):
        return f"{value:.2f}%"
    return f"{_round(value)} {UNITS.get(name, '')}".rstrip()


def interval_text(name: str, entry: Metric) -> str:
    """The 95 % interval over speakers; a dash where there are too few clips for one."""
    if "low" not in entry or "high" not in entry:
        return "–"
    return f"{value_text(name, entry['low'])} to {value_text(name, entry['high'])}"


def _round(value: float) -> str:
    """About three digits: distances of seeded networks may be far below 1, others in the
    hundreds."""
    size = abs(value)
    if 0 < size < 0.01:
        return f"{value:.2g}"
    return f"{value:.{1 if size >= 100 else 2 if size >= 1 else 3}f}"


def count_text(name: str, n: int) -> str:
    """How many things a metric is computed over, with their name."""
    things = COUNTED.get(name, "clips")
    return f"{n} {things.removesuffix('s') if n == 1 else things}"


def metric_lines(metrics: Mapping[str, Metric], names: Iterable[str] | None = None) -> list[str]:
    """A table with the columns metric, value, 95 % interval, n and measured by, and the reasons of
    `none`.

    Args:
        metrics: name -> value, label, n and, where there is no value, perhaps a reason.
        names: those to show; None for all.
    """
    chosen = [name for name in (metrics if names is None else names) if name in metrics]
    rows = [("metric", "value", "95 %", "n", "measured by")]
    for name in chosen:
        entry = metrics[name]
        value, spread = value_text(name, entry["value"]), interval_text(name, entry)
        rows.append((name, value, spread, count_text(name, entry["n"]), entry["label"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"  {name:{widths[0]}}  {value:>{widths[1]}}  {spread:>{widths[2]}}  {n:>{widths[3]}}"
        f"  {label}"
        for name, value, spread, n, label in rows
    ]
    return lines + _reasons(metrics, chosen)


def _reasons(metrics: Mapping[str, Metric], names: Sequence[str]) -> list[str]:
    """One line per reason, with the metrics that lack a value for it."""
    lacking: dict[str, list[str]] = {}
    for name in names:
        if metrics[name]["value"] is None:
            # Evaluations by older versions of this program give no reason.
            reason = metrics[name].get("reason") or "the evaluation gives no reason"
            lacking.setdefault(reason, []).append(name)
    return [f"  no value for {', '.join(each)}: {reason}" for reason, each in lacking.items()]


def evaluation_lines(
    evaluation: Evaluation, output: Path, names: Iterable[str] | None = None
) -> list[str]:
    """All lines at the end of an evaluation.

    Args:
        evaluation: content of `evaluation.json`.
        output: its folder.
        names: metrics to show; None for all.
    """
    kind = "test" if evaluation.get("split", "test") == "test" else "TRAINING"
    count = len(evaluation["clips"])
    lines = [f"evaluated on {count} {kind} clip{'s' * (count != 1)}:"]
    lines += metric_lines(evaluation["metrics"], names)
    lines += [f"beware: {warning}" for warning in evaluation.get("warnings", ())]
    files = (("numbers", EVALUATION), ("plots", PLOTS), ("contact sheet", CONTACT_SHEET))
    return lines + [f"{what:13s} {output / name}" for what, name in files]


def comparison_lines(facts: Mapping[str, Any], page: Path) -> list[str]:
    """The differences that are sure, and where the page is.

    Args:
        facts: what `tasks.evaluate.comparison_page.write_comparison` returned.
        page: the page.
    """
    first = facts["models"][0]
    lines = [f"compared on {len(facts['clips'])} clips:"]
    for name, differences in facts["differences"].items():
        sure = {key: each for key, each in differences.items() if each["verdict"] in VERDICTS}
        lines.append(f"  {name} against {first}: {len(sure)} sure differences")
        for key, each in sure.items():
            ends = interval_text(key, each)
            lines.append(f"    {each['verdict']:6s}  {key} by {value_text(key, each['value'])}")
            lines[-1] += f" ({ends}, {count_text(key, each['n'])})"
    return [*lines, f"{'page':13s} {page}"]


def lse_lines(metrics: Mapping[str, Metric], output: Path) -> list[str]:
    """The table of LSE, and where its numbers are."""
    return [*metric_lines(metrics), f"{'numbers':13s} {output / RESULT}"]
