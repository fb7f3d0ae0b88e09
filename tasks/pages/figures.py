"""Figures that need no window system, their colours, and their bytes as PNG."""

import io
from typing import Any, Literal

INK = "#1d2733"
ACCENT = "#2f6fde"
SECOND = "#e0702f"
THIRD = "#3a9d6e"
GREY = "#98a2ad"
COLOURS = {"real": GREY, "reconstruction": THIRD, "cross": ACCENT}
HEADING_WIDTH, PANEL_WIDTH = 110, 46
"""Characters per line of a figure's heading, and of a text in one of its panels."""


def blank_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Any:
    """A figure that needs no window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A figure and its axes as an array (rows, columns)."""
    figure = blank_figure(width, height, "constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
        axis.tick_params(colors=INK, labelsize=8)
        axis.title.set_color(INK)
    return figure, axes


def png(figure: Any, dpi: int = 130) -> bytes:
    """The figure as PNG without a date, so that equal figures are equal bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()
