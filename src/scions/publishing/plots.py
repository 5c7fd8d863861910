"""Plots: scores with intervals, matrices, curves and heat maps, as PNG, SVG or PDF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.evaluation import Interval
    from scions.evaluation.verdict import Verdict

FORMATS = (".png", ".svg", ".pdf")
SCORES = "scores.png"  # the plot in an adapter's folder
_BASE, _ADAPTER, _BASELINE = "#9aa5b1", "#2f855a", "#c05621"


def check_picture(path: Path, force: bool) -> None:
    """Raise UsageError where a picture cannot be written to ``path``, or exists and ``force`` is False."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path}: pictures are {', '.join(FORMATS)}; found {path.suffix or 'no ending'!r}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; replace it with `force=True`")


def draw_scores(verdict: Verdict) -> bytes:
    """Draw base, adapter and baselines as bars with 95 % intervals. Returns a PNG."""
    bars = [("base", verdict.base, _BASE), ("adapter", verdict.adapter, _ADAPTER)]
    bars += [(name, value, _BASELINE) for name, value in verdict.baselines.items()]
    figure, axes = _figure(5.2, 3.2)
    for place, (_name, value, color) in enumerate(bars):
        low, high = _errors([value])
        axes.bar(place, value.value, color=color, yerr=[low, high], capsize=4)
        axes.annotate(f"{value.value:.1f}", (place, value.high), ha="center", va="bottom", fontsize=9)
    axes.set_xticks(range(len(bars)), [name for name, _, _ in bars])
    axes.set_ylabel(verdict.metric)
    axes.set_ylim(0, max(value.high for _, value, _ in bars) * 1.15 + 1)
    axes.set_title(verdict.outcome)
    axes.spines[["top", "right"]].set_visible(False)
    return _rendered(figure)


def draw_matrix(names: Sequence[str], matrix: np.ndarray, title: str, highest: float) -> bytes:
    """Draw a symmetric matrix ``[names, names]`` as a heat map with its values; the diagonal stays empty.

    Args:
        names: of rows and columns.
        matrix: values from 0 up.
        title: of the plot.
        highest: the value at the dark end of the scale; larger values extend it.

    Returns:
        A PNG.
    """
    side = max(3.2, 0.75 * len(names) + 1.6)
    figure, axes = _figure(side + 0.8, side)
    shown = np.array(matrix, dtype=float)
    np.fill_diagonal(shown, np.nan)
    top = max(highest, float(np.nanmax(shown, initial=0.0)))
    image = axes.imshow(shown, cmap="YlOrRd", vmin=0, vmax=top)
    for row, column in np.argwhere(~np.isnan(shown)):
        value = shown[row, column]
        color = "white" if value > 0.7 * top else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title)
    figure.colorbar(image, shrink=0.8)
    return _rendered(figure)


def draw_curve(
    sparsities: Sequence[float], scores: Sequence[Interval], base: Interval, metric: str, title: str
) -> bytes:
    """Draw scores with intervals against sparsity (0 to 1), the base's score as a line. Returns a PNG."""
    figure, axes = _figure(5.4, 3.4)
    shares, values = [100 * sparsity for sparsity in sparsities], [score.value for score in scores]
    axes.errorbar(shares, values, yerr=_errors(scores), marker="o", capsize=4, color=_ADAPTER, label="adapter")
    axes.axhline(base.value, linestyle="--", color=_BASE, label="base")
    axes.set_xlabel("sparsity, %")
    axes.set_ylabel(metric)
    axes.set_title(title)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _rendered(figure)


def draw_heads(heads: Sequence[Sequence[float]], kind: str) -> bytes:
    """Draw the importance (0 to 1) of attention heads ``[layers, heads]`` as a heat map.

    ``kind`` is one of `FORMATS`.
    """
    figure, axes = _figure(2 + 0.5 * len(heads[0]), 1.5 + 0.4 * len(heads))
    image = axes.imshow([list(layer) for layer in heads], vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_xticks(range(len(heads[0])))
    axes.set_yticks(range(len(heads)))
    axes.set_title("importance for general knowledge")
    figure.colorbar(image)
    return _rendered(figure, kind.lower().removeprefix("."), dpi=150)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _rendered(figure: Any, kind: str = "png", dpi: int = 110) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=dpi)
    return out.getvalue()


def _errors(values: Sequence[Interval]) -> list[list[float]]:
    """Distances from each value down and up to its interval's bounds, as matplotlib takes them."""
    below = [max(0.0, value.value - value.low) for value in values]
    above = [max(0.0, value.high - value.value) for value in values]
    return [below, above]
