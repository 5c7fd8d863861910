"""Score against sparsity as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scions.evaluation import Interval

if TYPE_CHECKING:
    from scions.mixing.pruning import Point


def draw_curve(points: Sequence[Point], base: Interval, metric: str, title: str) -> bytes:
    """A PNG: a pruned adapter's scores with their intervals, and the base's as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = [100 * point.sparsity for point in points]
    values = [point.score.value for point in points]
    below = [max(0.0, p.score.value - p.score.low) for p in points]
    above = [max(0.0, p.score.high - p.score.value) for p in points]
    axes.errorbar(shares, values, yerr=[below, above], marker="o", capsize=4, color="#2f855a", label="adapter")
    axes.axhline(base.value, linestyle="--", color="#9aa5b1", label="base")
    axes.set_xlabel("sparsity, %")
    axes.set_ylabel(metric)
    axes.set_title(title)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
