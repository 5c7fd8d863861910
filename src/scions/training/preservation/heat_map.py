"""Importance of heads as a picture: a row a layer, a column a head."""

from __future__ import annotations

import io
from pathlib import Path

from scions.errors import UsageError
from scions.store import write_file
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
    """Write the heat map of ``importance.heads``; the file appears whole.

    Raises:
        ScionsError: the disk is full or the place cannot be written.
    """
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
    out = io.BytesIO()
    figure.savefig(out, format=path.suffix[1:].lower(), dpi=150)
    write_file(path, out.getvalue())
