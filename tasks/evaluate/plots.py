"""Pictures of results: contact sheets, curves and histograms, as PNG by matplotlib."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.store.atomic import write_atomic
from tasks.evaluate.metrics import ClipScores
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
LABEL_ROOM = 0.03
"""Height of a small name, as a share of its axis."""
SheetRow = tuple[str, str, np.ndarray]
"""Name of the clip, description of the row, and uint8 (columns, h, w, 3)."""


def sheet_frames(frames: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Frames for a row of a contact sheet, evenly spread over (t, h, w, 3); a copy, which
    does not keep the video."""
    return frames[np.linspace(0, len(frames) - 1, columns).astype(int)]


def contact_sheet(path: Path, rows: Sequence[SheetRow]) -> None:
    """Frames of several videos, one row each.

    Args:
        path: the PNG to write.
        rows: equally many frames each.
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
    details: Sequence[ClipScores],
    heading: str = "",
    baselines: Mapping[str, Mapping[str, Metric]] | None = None,
) -> None:
    """Distances over shifts of the sound, and the numbers of each clip.

    Args:
        path: the PNG to write.
        metrics: what `evaluate` returns.
        details: what `Scores.add` returned for each clip.
        heading: which clips these are; if empty, how many.
        baselines: name of a trivial model -> its metrics; drawn as lines.
    """
    figure, axes = new_figure(20, 6.6, 2, 4)
    _distances(axes[0, 0], metrics, details)
    for axis, name, title in (
        (axes[0, 1], "sync_c", "Sync-C per clip"),
        (axes[1, 0], "mouth_z", "z of mouth opening against speech, per clip"),
    ):
        _per_clip(axis, metrics, details, name, title)
        _trivial_lines(axis, {each: values[name] for each, values in (baselines or {}).items()})
    _picture_quality(axes[1, 1], details)
    _leaks(axes[0, 2], metrics, details)
    _per_clip(axes[1, 2], metrics, details, "closure_gap", "Opening at p, b, m over the usual one")
    _flicker(axes[0, 3], metrics, details)
    _identity(axes[1, 3], metrics, details)
    for axis, name in ((axes[0, 3], "flicker"), (axes[1, 3], "identity")):
        entries = {each: values[name] for each, values in (baselines or {}).items()}
        if axis.patches:
            _trivial_lines(axis, entries)
    judge = "\n".join(textwrap.wrap(metrics["sync_c"]["label"], HEADING_WIDTH))
    heading = heading or f"{len(details)} clips"
    figure.suptitle(f"{heading}. Judge of sync: {judge}", fontsize=10, color=INK)
    write_atomic(path, png(figure))


def _distances(axis: Any, metrics: dict[str, Metric], details: Sequence[ClipScores]) -> None:
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
    """Write the reason in place of axes that would show nothing."""
    reason = entry.get("reason", "") if entry else ""
    text = "\n".join(["no value for any clip", *textwrap.wrap(reason, PANEL_WIDTH)])
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def _leaks(axis: Any, metrics: dict[str, Metric], details: Sequence[ClipScores]) -> None:
    """Bars of what lips take from the input, clips side by side."""
    names = {"leak_opening": THIRD, "leak_moving": SECOND, "leak_correlation": ACCENT}
    axis.set_title("What the lips take from the input, per clip", fontsize=9.5)
    values = {name: [clip["values"].get(name) for clip in details] for name in names}
    if all(value is None for each in values.values() for value in each):
        _no_value(axis, metrics.get("leak_correlation"))
        return
    _bars(
        axis, {name.removeprefix("leak_"): each for name, each in values.items()}, [*names.values()]
    )
    _clip_axis(axis, len(details))
    axis.legend(fontsize=8, frameon=False)


def _flicker(axis: Any, metrics: dict[str, Metric], details: Sequence[ClipScores]) -> None:
    """Bars of how restless the repainted part is; 1 is as restless as real video."""
    axis.set_title("Flicker of the repainted part over the real video's", fontsize=9.5)
    _plain_bars(axis, metrics, details, {"flicker": ("flicker", ACCENT)}, "flicker")
    if axis.patches:
        axis.axhline(1, color=INK, linewidth=0.7, linestyle=":")


def _identity(axis: Any, metrics: dict[str, Metric], details: Sequence[ClipScores]) -> None:
    """Bars of how far faces are from the reference; the real video's show what is usual."""
    axis.set_title("Distance of the face to the reference", fontsize=9.5)
    series = {
        "real": ("identity_real", COLOURS["real"]),
        "cross": ("identity_cross", COLOURS["cross"]),
    }
    _plain_bars(axis, metrics, details, series, "identity")


def _plain_bars(
    axis: Any,
    metrics: dict[str, Metric],
    details: Sequence[ClipScores],
    series: Mapping[str, tuple[str, str]],
    metric: str,
) -> None:
    """Bars of some numbers (what is shown -> number, colour), clips side by side."""
    values = {
        name: [clip["values"].get(number) for clip in details]
        for name, (number, _) in series.items()
    }
    if all(value is None for each in values.values() for value in each):
        _no_value(axis, metrics.get(metric))
        return
    _bars(axis, values, [colour for _, colour in series.values()])
    _clip_axis(axis, len(details))
    axis.legend(fontsize=8, frameon=False)


def _bars(axis: Any, values: Mapping[str, Sequence[float | None]], colours: Sequence[str]) -> None:
    """Several numbers of each clip, side by side."""
    width = 0.8 / len(values)
    for position, ((name, each), colour) in enumerate(zip(values.items(), colours, strict=True)):
        heights = [np.nan if value is None else value for value in each]
        x = np.arange(len(heights)) + (position - (len(values) - 1) / 2) * width
        axis.bar(x, heights, width, color=colour, label=name)


def _per_clip(
    axis: Any,
    metrics: dict[str, Metric],
    details: Sequence[ClipScores],
    name: str,
    title: str,
) -> None:
    """Bars of one number for every kind of video, clips side by side."""
    values = {kind: [clip["values"].get(f"{name}_{kind}") for clip in details] for kind in COLOURS}
    if all(value is None for each in values.values() for value in each):
        axis.set_title(title, fontsize=9.5)
        _no_value(axis, metrics.get(name))
        return
    _bars(axis, values, [*COLOURS.values()])
    axis.set_title(title, fontsize=9.5)
    _clip_axis(axis, len(details))


def _trivial_lines(axis: Any, entries: Mapping[str, Metric]) -> None:
    """Where models lie that deserve no credit: a line each, named at its right end."""
    known = {name: each["value"] for name, each in entries.items() if each["value"] is not None}
    room = LABEL_ROOM * (axis.get_ylim()[1] - axis.get_ylim()[0])
    lowest = -np.inf
    for name, value in sorted(known.items(), key=lambda each: each[1]):
        axis.axhline(value, color=GREY, linewidth=0.6, linestyle="--")
        # Names of lines that are close stand one above the other.
        lowest = max(value, lowest + room)
        axis.annotate(
            name, (1.005, lowest), xycoords=("axes fraction", "data"), fontsize=5.5, va="center"
        )


def _clip_axis(axis: Any, count: int) -> None:
    """Label clips by number, even a single one."""
    axis.set_xlabel("clip", fontsize=8)
    axis.set_xlim(-0.6, count - 0.4)
    axis.set_xticks(range(count) if count <= 12 else [])


def _picture_quality(axis: Any, details: Sequence[ClipScores]) -> None:
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
