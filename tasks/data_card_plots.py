"""Pictures of a data card: a histogram for every score, accepted and refused clips stacked."""

import numpy as np

from tasks.data_card_scores import Distribution
from tasks.plots import ACCENT, GREY, INK, SECOND, new_figure, png


def histogram(distribution: Distribution) -> bytes:
    """How many clips have which value of a score, and where the threshold lies; PNG."""
    figure, axes = new_figure(4.8, 2.8)
    axis = axes[0, 0]
    edges = np.array(distribution.edges)
    good, bad = np.array(distribution.accepted), np.array(distribution.refused)
    left, widths = edges[:-1], np.diff(edges)
    for counts, bottom, colour, name in (
        (good, 0 * good, ACCENT, "accepted"),
        (bad, good, SECOND, "refused"),
    ):
        # An edge in the bars' own colour closes the hair-lines between them.
        axis.bar(
            left, counts, widths, bottom, align="edge", color=colour, edgecolor=colour,
            linewidth=0.4, label=f"{name}: {counts.sum():,}",
        )  # fmt: skip
    for limit in distribution.limits:
        axis.axvline(limit, color=INK, linewidth=1, linestyle="--")
    if distribution.limits:
        axis.plot([], [], color=INK, linewidth=1, linestyle="--", label="threshold")
    if distribution.log:
        axis.set_xscale("log")
    axis.set_xlim(edges[0], edges[-1])
    # Room for the legend above the highest bar.
    axis.set_ylim(0, 1.32 * max(int((good + bad).max()), 1))
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title(distribution.title, fontsize=9.5, loc="left")
    axis.set_xlabel(distribution.unit, fontsize=8)
    axis.set_ylabel("clips", fontsize=8)
    axis.legend(fontsize=7, frameon=False, ncols=3, loc="upper left")
    return png(figure)
