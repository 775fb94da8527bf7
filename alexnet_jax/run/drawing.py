"""Canvas, colours and PNG files of every picture. Pictures are never shown, so pyplot is not used."""

from pathlib import Path
from typing import TYPE_CHECKING

from alexnet_jax import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#4477aa", "#cc3311", "#228833", "#777777"
"""Colours that colour-blind readers can distinguish (Paul Tol's bright scheme), also when printed in grey."""

DPI = 150
"""Pixels per inch of every picture."""


def canvas(size: tuple[float, float], title: str) -> "Figure":
    """Return an empty figure of `size` inches with a title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Replace a PNG file atomically. Missing parent folders are made."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
