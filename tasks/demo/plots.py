"""The demo's figures: offsets found, training losses, mouth and sound."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tasks.pages.figures import ACCENT, GREY, SECOND, THIRD, new_figure, png


def offset_histogram(found: Iterable[float], truth: Iterable[float] | None = None) -> bytes:
    """Plot how many frames the audio of accepted clips was late; PNG.

    Args:
        found: measured offsets at 25 fps.
        truth: the known offsets, in the same order, if the data is generated.
    """
    offsets = np.array([*found], float)
    columns = 1 if truth is None else 2
    figure, axes = new_figure(4.6 * columns, 3, 1, columns)
    bins = np.arange(-15.5, 16.5)
    axes[0, 0].hist(offsets, bins=bins, color=ACCENT)
    axes[0, 0].set_title("Audio offset found (accepted clips)", fontsize=9.5)
    axes[0, 0].set_xlabel("frames (25 fps), right: audio late", fontsize=8)
    if truth is not None:
        draw_found_against_true(axes[0, 1], truth, offsets)
    return png(figure)


def draw_found_against_true(axis: Any, truth: Iterable[float], found: Iterable[float]) -> None:
    """A dot for each clip: the true offset of its audio to the right, the found one upwards.

    Args:
        axis: to draw on.
        truth: offsets at 25 fps.
        found: the same, in the same order.
    """
    axis.plot([-10, 10], [-10, 10], color=GREY, linewidth=0.8, zorder=0)
    axis.scatter([*truth], [*found], s=16, color=ACCENT, alpha=0.7, linewidth=0)
    axis.set_title("Found against true offset", fontsize=9.5)
    axis.set_xlabel("true, frames", fontsize=8)
    axis.set_ylabel("found, frames", fontsize=8)


def loss_curves(curves: dict[str, list[dict[str, float]]]) -> bytes:
    """Plot the loss of each stage over its steps; PNG.

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
                "ln 2: chance",
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
    """Plot mouth opening and loudness over time, one above the other; PNG.

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
