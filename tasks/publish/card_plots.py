"""Plots of a data card: a histogram of every score, with accepted and refused clips stacked."""

import numpy as np

from tasks.pages.figures import ACCENT, GREY, INK, SECOND, new_figure, png
from tasks.publish.card_scores import Distribution

HEADROOM = 1.3
"""Height of the plot relative to its highest bar, leaving room for the legend."""


def histogram(distribution: Distribution) -> bytes:
    """A PNG that shows how many clips have which score, and where the threshold is."""
    figure, axes = new_figure(4.0, 2.6)
    axis = axes[0, 0]
    edges = np.array(distribution.edges)
    good, bad = np.array(distribution.accepted), np.array(distribution.refused)
    marks = []
    for counts, bottom, colour, name in (
        (good, 0 * good, ACCENT, "accepted"),
        (bad, good, SECOND, "refused"),
    ):
        label = f"{name} {counts.sum():,}"
        # An edge in the bars' own colour closes the hairlines between them.
        style = {"color": colour, "edgecolor": colour, "linewidth": 0.4, "label": label}
        marks.append(axis.bar(edges[:-1], counts, np.diff(edges), bottom, align="edge", **style))
    for limit in distribution.limits:
        line = axis.axvline(limit, 0, 1 / HEADROOM, color=INK, linewidth=1, linestyle="--")
        line.set_label("threshold")
    if distribution.limits:
        marks.append(line)
    if distribution.log:
        axis.set_xscale("log")
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylim(0, HEADROOM * max(int((good + bad).max()), 1))
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title(distribution.title, fontsize=9.5, loc="left")
    axis.set_xlabel(distribution.unit, fontsize=8)
    axis.set_ylabel("clips", fontsize=8)
    legend = {"fontsize": 7, "frameon": False, "columnspacing": 1.2, "handlelength": 1.4}
    axis.legend(handles=marks, ncols=3, loc="upper left", borderaxespad=0.2, **legend)
    return png(figure, 150)
