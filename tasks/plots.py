"""Pictures of results: contact sheets, curves and histograms, as PNG by matplotlib."""

import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.store.atomic import write_atomic
from tasks.pages.figures import (
    ACCENT,
    COLOURS,
    GREY,
    HEADING_WIDTH,
    INK,
    PANEL_WIDTH,
    SECOND,
    THIRD,
    blank_figure,
    new_figure,
    png,
)
from tasks.registry.metric import Metric

COLUMNS = 10
"""Frames per row of a contact sheet."""


def sheet_frames(frames: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """The frames of a row of a contact sheet, evenly spread over (t, h, w, 3); a copy, which
    does not keep the video."""
    return frames[np.linspace(0, len(frames) - 1, columns).astype(int)]


def contact_sheet(path: Path, rows: Sequence[tuple[str, str, np.ndarray]]) -> None:
    """Frames of several videos, one row each.

    Args:
        path: of the PNG.
        rows: name of the clip, what the row shows, uint8 (columns, h, w, 3), equally many each.
    """
    columns = len(rows[0][2])
    label, cell, gap = 1.1, 1.15, 0.03
    width, height = label + columns * cell, len(rows) * cell
    figure = blank_figure(width, height)
    for line, (name, kind, frames) in enumerate(rows):
        short = name if len(name) <= 16 else f"…{name[-15:]}"
        y = 1 - (line + 0.5) * cell / height
        figure.text(0.05 / width, y, f"{kind}\n{short}", fontsize=6.5, color=INK, va="center")
        for column, frame in enumerate(frames):
            left, bottom = (label + column * cell) / width, 1 - (line + 1) * cell / height
            box = (left, bottom, (cell - gap) / width, (cell - gap) / height)
            axis = figure.add_axes(box)
            axis.imshow(frame, interpolation="none")
            axis.set_axis_off()
    write_atomic(path, png(figure, 110))


def evaluation_page(
    path: Path,
    metrics: dict[str, Metric],
    details: Sequence[dict[str, Any]],
    heading: str = "",
) -> None:
    """Distances over shifts of the sound, and the numbers of each clip.

    Args:
        path: of the PNG.
        metrics: what `evaluate` returns.
        details: what `Scores.add` returned for each clip.
        heading: which clips these are; empty: how many.
    """
    figure, axes = new_figure(11, 6.6, 2, 2)
    _distances(axes[0, 0], metrics, details)
    _per_clip(axes[0, 1], metrics, details, "sync_c", "Sync-C per clip")
    title = "z of mouth opening against speech, per clip"
    _per_clip(axes[1, 0], metrics, details, "mouth_z", title)
    _picture_quality(axes[1, 1], details)
    judge = "\n".join(textwrap.wrap(metrics["sync_c"]["label"], HEADING_WIDTH))
    heading = heading or f"{len(details)} clips"
    figure.suptitle(f"{heading}. Judge of sync: {judge}", fontsize=10, color=INK)
    write_atomic(path, png(figure))


def _distances(axis: Any, metrics: dict[str, Metric], details: Sequence[dict[str, Any]]) -> None:
    """A curve over the shifts for every clip and, strong, their mean."""
    axis.set_title("Distance of lips and sound, by shift of the sound", fontsize=9.5)
    shifts = np.arange(-15, 16)
    drawn = False
    for kind, colour in COLOURS.items():
        curves = np.array([clip["distances"][kind] for clip in details], float)
        curves = curves[np.isfinite(curves).all(1)]
        if not len(curves):
            continue
        drawn = True
        for curve in curves:
            axis.plot(shifts, curve, color=colour, alpha=0.18, linewidth=0.8)
        axis.plot(shifts, curves.mean(0), color=colour, linewidth=2, label=kind)
    if not drawn:
        _no_value(axis, metrics.get("sync_d"))
        return
    axis.axvline(0, color=GREY, linewidth=0.7, linestyle=":")
    axis.set_xlabel("frames (25 fps), right: audio late", fontsize=8)
    axis.legend(fontsize=8, frameon=False)


def _no_value(axis: Any, entry: Metric | None) -> None:
    """Say so, and why, in the place of axes that would show nothing."""
    reason = entry.get("reason", "") if entry else ""
    text = "\n".join(["no value for any clip", *textwrap.wrap(reason, PANEL_WIDTH)])
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def _per_clip(
    axis: Any,
    metrics: dict[str, Metric],
    details: Sequence[dict[str, Any]],
    name: str,
    title: str,
) -> None:
    """Bars of one number for every kind of video, clips side by side."""
    if all(clip["values"][f"{name}_{kind}"] is None for clip in details for kind in COLOURS):
        axis.set_title(title, fontsize=9.5)
        _no_value(axis, metrics.get(name))
        return
    width = 0.8 / len(COLOURS)
    for position, (kind, colour) in enumerate(COLOURS.items()):
        values = [clip["values"][f"{name}_{kind}"] for clip in details]
        x = np.arange(len(details)) + (position - 1) * width
        heights = [np.nan if value is None else value for value in values]
        axis.bar(x, heights, width, color=colour, label=kind)
    axis.set_title(title, fontsize=9.5)
    _clip_axis(axis, len(details))


def _clip_axis(axis: Any, count: int) -> None:
    """Clips by their number, also a single one."""
    axis.set_xlabel("clip", fontsize=8)
    axis.set_xlim(-0.6, count - 0.4)
    axis.set_xticks(range(count) if count <= 12 else [])


def _picture_quality(axis: Any, details: Sequence[dict[str, Any]]) -> None:
    """Dots of SSIM, of the whole face and of what was repainted."""
    axis.set_title("SSIM of the reconstruction, per clip", fontsize=9.5)
    if all(clip["values"]["ssim"] is None for clip in details):
        _no_value(axis, None)
        return
    for name, colour in (("ssim", GREY), ("ssim_mouth", ACCENT)):
        values = [clip["values"][name] for clip in details]
        axis.plot(range(len(values)), values, "o-", color=colour, label=name, markersize=4)
    axis.set_ylim(0, 1.02)
    _clip_axis(axis, len(details))
    axis.legend(fontsize=8, frameon=False)


def offset_histogram(found: Iterable[float], truth: Iterable[float] | None = None) -> bytes:
    """How many frames the audio of accepted clips was late; PNG.

    Args:
        found: measured offsets at 25 fps.
        truth: the known ones, in the same order, where the data is generated.
    """
    offsets = np.array([*found], float)
    columns = 1 if truth is None else 2
    figure, axes = new_figure(4.6 * columns, 3, 1, columns)
    bins = np.arange(-15.5, 16.5)
    axes[0, 0].hist(offsets, bins=bins, color=ACCENT)
    axes[0, 0].set_title("Audio offset found (accepted clips)", fontsize=9.5)
    axes[0, 0].set_xlabel("frames (25 fps), right: audio late", fontsize=8)
    if truth is not None:
        known = np.array([*truth], float)
        axes[0, 1].plot([-10, 10], [-10, 10], color=GREY, linewidth=0.8, zorder=0)
        axes[0, 1].scatter(known, offsets, s=16, color=ACCENT, alpha=0.7, linewidth=0)
        axes[0, 1].set_title("Found against true offset", fontsize=9.5)
        axes[0, 1].set_xlabel("true, frames", fontsize=8)
        axes[0, 1].set_ylabel("found, frames", fontsize=8)
    return png(figure)


def read_curve(path: Path) -> list[dict[str, float]]:
    """The points of a stage's `metrics.jsonl`; none when there is no such file."""
    if not path.is_file():
        return []
    points = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            points.append(json.loads(line))
        except json.JSONDecodeError:
            # The last line of a run that was killed.
            break
    return points


def loss_curves(curves: dict[str, list[dict[str, float]]]) -> bytes:
    """Loss of each stage over its steps; PNG.

    Args:
        curves: stage -> points with `step`, `loss` and more.
    """
    figure, axes = new_figure(3.3 * len(curves), 2.7, 1, max(1, len(curves)))
    for axis, (stage, points) in zip(axes[0], curves.items(), strict=True):
        for name, colour in (("loss", ACCENT), ("heldout_loss", SECOND)):
            known = [(each["step"], each[name]) for each in points if name in each]
            if known:
                steps, values = zip(*known, strict=True)
                marker = "o-" if name == "heldout_loss" else "-"
                axis.plot(steps, values, marker, color=colour, label=name, markersize=3)
        if stage == "syncnet":
            axis.axhline(np.log(2), color=GREY, linestyle=":", linewidth=1)
            axis.annotate(
                "ln 2: knows nothing",
                (0.99, np.log(2)),
                xycoords=axis.get_yaxis_transform(),
                fontsize=7,
                color=GREY,
                ha="right",
                va="bottom",
            ).set_in_layout(False)
        elif points and min(each["loss"] for each in points) > 0:
            axis.set_yscale("log")
        axis.set_title(stage, fontsize=9.5)
        axis.set_xlabel("step", fontsize=8)
        if any("heldout_loss" in each for each in points):
            axis.legend(fontsize=7.5, frameon=False)
    return png(figure)


def mouth_curves(times_s: np.ndarray, courses: dict[str, np.ndarray]) -> bytes:
    """Mouth opening and loudness over time, one above the other; PNG.

    Args:
        times_s: (t,).
        courses: name -> (t,), drawn in order, each scaled to itself.
    """
    figure, axes = new_figure(9.5, 1.3 * len(courses) + 0.5, len(courses), 1)
    colours = (ACCENT, SECOND, GREY, THIRD)
    for axis, (name, values), colour in zip(axes[:, 0], courses.items(), colours, strict=False):
        axis.plot(times_s[: len(values)], values, color=colour, linewidth=1.2)
        axis.set_title(name, fontsize=8.5, loc="left")
        axis.set_yticks([])
        axis.set_xlim(times_s[0], times_s[-1])
    axes[-1, 0].set_xlabel("seconds", fontsize=8)
    return png(figure)
