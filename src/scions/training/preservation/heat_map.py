"""Importance of heads as a picture: a row a layer, a column a head."""

from __future__ import annotations

import os
from pathlib import Path

from scions.errors import UsageError
from scions.training.preservation.importance import Importance

KINDS = (".png", ".svg", ".pdf")


def check_picture(path: Path, force: bool) -> None:
    """Raise UsageError where a picture cannot be written to ``path``, or would replace one unasked."""
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"{path}: pictures are {', '.join(KINDS)}; found {path.suffix or 'no ending'!r}")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; --force replaces it")


def draw_heads(importance: Importance, path: Path) -> None:
    """Write the heat map of ``importance.heads``; the file appears whole."""
    from matplotlib.figure import Figure

    layers = [values.tolist() for values in importance.heads.values()]
    figure = Figure(figsize=(2 + 0.5 * len(layers[0]), 1.5 + 0.4 * len(layers)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(layers, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_xticks(range(len(layers[0])))
    axes.set_yticks(range(len(layers)))
    axes.set_title("importance for general knowledge")
    figure.colorbar(image)
    aside = path.with_name(f".{path.stem}.new{path.suffix}")
    figure.savefig(aside, dpi=150)
    os.replace(aside, path)
