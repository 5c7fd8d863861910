"""Fractions of sign difference of all pairs as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from scions.mixing.expectation import CONFLICT


def draw(names: Sequence[str], matrix: np.ndarray, title: str = "fraction of sign difference") -> bytes:
    """A PNG of a symmetric matrix ``[names, names]``, each field with its figure; the diagonal is left empty."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = max(3.2, 0.75 * len(names) + 1.6)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = np.array(matrix, dtype=float)
    np.fill_diagonal(shown, np.nan)
    highest = max(2 * CONFLICT, float(np.nanmax(shown, initial=0.0)))
    image = axes.imshow(shown, cmap="YlOrRd", vmin=0, vmax=highest)
    for row, column in np.argwhere(~np.isnan(shown)):
        value = shown[row, column]
        axes.text(
            column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.7 * highest else "black"
        )
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title)
    figure.colorbar(image, shrink=0.8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
