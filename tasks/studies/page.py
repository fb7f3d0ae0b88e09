"""A study as one page: its claims, its table, its curves, and what each arm cost."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.store.atomic import write_atomic
from tasks.pages.figures import ACCENT, GREY, INK, SECOND, THIRD, new_figure, png
from tasks.pages.html import render
from tasks.pages.markdown import table as markdown_table
from tasks.studies.results import Outcome, cell, claim_rows, judge, table_rows
from tasks.studies.study import Study

PAGE, TABLE, CLAIMS, NUMBERS, PLOT, CURVES = (
    "study.html",
    "table.md",
    "claims.md",
    "numbers.csv",
    "arms.png",
    "curves.png",
)
COLOURS = (ACCENT, SECOND, THIRD, "#8a56c9", "#c2a12b", "#c9567d", "#3aa5a5", GREY)


def write_study(study: Study, outcomes: Sequence[Outcome], output: Path, expected: int) -> None:
    """Write the page and its parts, over those of before.

    Args:
        study: the study.
        outcomes: of the trainings that have ended.
        output: folder.
        expected: how many trainings the study has.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows, claims = table_rows(study, outcomes), claim_rows(judge(study, outcomes))
    head, cells = _texts(rows)
    claim_head, claim_cells = _texts(claims)
    plot, curves = arms_plot(study, outcomes), curves_plot(study, outcomes)
    write_atomic(output / TABLE, markdown_table(head, cells) + "\n")
    write_atomic(output / CLAIMS, markdown_table(claim_head, claim_cells) + "\n")
    write_atomic(output / NUMBERS, numbers_csv(outcomes))
    write_atomic(output / "study.json", json.dumps([each.as_record() for each in outcomes]))
    for name, content in ((PLOT, plot), (CURVES, curves)):
        if content:
            write_atomic(output / name, content)
    page = render(
        "studies/study.html",
        title=f"Study: {study.name}",
        study=study,
        done=f"{len(outcomes)} of {expected} trainings have ended.",
        head=head,
        rows=cells,
        claim_head=claim_head,
        claims=claim_cells,
        plot=plot,
        curves=curves,
    )
    write_atomic(output / PAGE, page)


def _texts(rows: Sequence[Mapping[str, object]]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of a table."""
    head = [*rows[0]] if rows else []
    return head, [[str(row[name]) for name in head] for row in rows]


def numbers_csv(outcomes: Sequence[Outcome]) -> str:
    """Every number of every training, a line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "metric", "value", "low", "high", "seconds", "reason"])
    for each in outcomes:
        for name, number in each.numbers.items():
            low, high = ("" if end is None else end for end in (number.low, number.high))
            writer.writerow(
                [each.arm, each.seed, name, number.value, low, high, round(each.seconds, 1), ""]
            )
        if not each.numbers:
            writer.writerow([each.arm, each.seed, "", "", "", "", each.seconds, each.reason])
    return text.getvalue()


def arms_plot(study: Study, outcomes: Sequence[Outcome]) -> bytes:
    """A panel for each metric: a dot for each training, its interval over clips, a bar for the mean
    of an arm; PNG, empty without numbers."""
    metrics = [
        each.name for each in study.metric if any(each.name in one.numbers for one in outcomes)
    ]
    if not metrics:
        return b""
    columns = min(3, len(metrics))
    count = math.ceil(len(metrics) / columns)
    height = (0.6 + 0.32 * len(study.arm)) * count + 0.4
    figure, axes = new_figure(1.2 + 3.4 * columns, height, count, columns)
    for axis, name in zip(axes.flat, metrics, strict=False):
        _draw_arms(axis, study, outcomes, name)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.set_visible(False)
    return png(figure)


def _draw_arms(axis: Any, study: Study, outcomes: Sequence[Outcome], name: str) -> None:
    better = next(each.better for each in study.metric if each.name == name)
    for row, arm in enumerate(study.arm):
        colour = COLOURS[row % len(COLOURS)]
        own = [each for each in outcomes if each.arm == arm.name and name in each.numbers]
        for place, each in enumerate(own):
            number = each.numbers[name]
            y = row + 0.5 * ((place + 1) / (len(own) + 1) - 0.5)
            if number.low is not None and number.high is not None:
                axis.plot([number.low, number.high], [y, y], color=colour, alpha=0.4, linewidth=1)
            axis.plot([number.value], [y], "o", color=colour, markersize=3.5)
        found = cell(own, arm.name, name)
        if found is not None:
            axis.plot([found.mean] * 2, [row - 0.35, row + 0.35], color=INK, linewidth=1.2)
    axis.set_yticks(range(len(study.arm)), [arm.name for arm in study.arm], fontsize=8)
    axis.set_ylim(len(study.arm) - 0.5, -0.5)
    axis.set_title(f"{name} ({better} is better)", fontsize=9)


def curves_plot(study: Study, outcomes: Sequence[Outcome]) -> bytes:
    """A panel for each held-out curve, a line for each training; PNG, empty without curves."""
    names = sorted({name for each in outcomes for name in each.curves})
    if not names:
        return b""
    columns = min(3, len(names))
    figure, axes = new_figure(
        3.6 * columns,
        2.6 * math.ceil(len(names) / columns),
        math.ceil(len(names) / columns),
        columns,
    )
    for axis, name in zip(axes.flat, names, strict=False):
        for row, arm in enumerate(study.arm):
            for each in outcomes:
                if each.arm == arm.name and name in each.curves:
                    steps, values = zip(*each.curves[name], strict=True)
                    label = arm.name if each.seed == 1 else None
                    colour = COLOURS[row % len(COLOURS)]
                    axis.plot(steps, values, color=colour, linewidth=1, alpha=0.8, label=label)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    next(iter(axes.flat)).legend(fontsize=7, frameon=False)
    return png(figure)
