"""`scions compare`: compare adapters' weights and effects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scions.cli.options import AdaptersFolder, base_option, optional
from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.mixing import Comparison


def compare(
    adapters: Annotated[list[str], typer.Argument(help="Two adapters or more, by name or folder.")],
    heat_map: Annotated[Path | None, typer.Option("--heat-map", "-o", help="Write a heat map here, as PNG.")] = None,
    by: Annotated[str | None, optional("Also show fractions by layer or by site.", "all together")] = None,
    effects: Annotated[
        bool, typer.Option("--effects", help="Encode texts with every adapter and compare their effects.")
    ] = False,
    texts: Annotated[str | None, optional("Texts for --effects.", "built-in general texts")] = None,
    base: Annotated[str | None, base_option("the adapters' own")] = None,
    folder: AdaptersFolder = None,
) -> None:
    """Compare the signs of adapters' weights, and show which adapters can be mixed.

    The fraction of a set is the share of weights whose signs are not unanimous. Layer norms do not count.

    \b
    Examples:
      scions compare legal contracts patents
      scions compare legal contracts patents --by layer -o heat.png
    """
    from scions.cli.progress import status
    from scions.cli.render import print_line, print_note

    if by not in (None, "layer", "site"):
        raise UsageError(f"--by {by!r}: choose layer or site")
    if heat_map is not None and heat_map.suffix.lower() != ".png":
        raise UsageError(f"--heat-map {heat_map}: a heat map is a PNG; name it something.png")
    if base is not None and not effects:
        raise UsageError("--base has no use without --effects")
    if texts is not None and not effects:
        raise UsageError("--texts is read for --effects only; add --effects")
    with status("comparing"):
        from scions.mixing import compare as run

        chosen = None if not effects else _texts(texts)
        comparison = run(adapters, texts=chosen, base=base, adapters=folder)
    _print(comparison, by)
    for note in comparison.notes:
        print_note(note)
    if heat_map is not None:
        from scions.mixing.conflict import CONFLICT
        from scions.publishing.plots import draw_matrix
        from scions.store import write_file

        picture = draw_matrix(comparison.names, comparison.matrix(), "fraction of sign difference", 2 * CONFLICT)
        print_line(f"heat map: {write_file(heat_map, picture)}")


def _texts(path: str | None, limit: int = 300) -> list[str]:
    from scions.data import drift_pairs, read

    if path is not None:
        return read(path).texts()[:limit]
    return list(dict.fromkeys(text for pair in drift_pairs() for text in pair))[:limit]


def _print(comparison: Comparison, by: str | None) -> None:
    from rich.text import Text

    from scions.cli.render import print_line, print_table

    headings = ["pair", "signs differ", "weights' cosine", "updates' cosine", "domains' cosine"]
    with_effects = any(pair.effect for pair in comparison.pairs)
    headings += ["effects' cosine", "effects' Spearman"] if with_effects else []
    rows: list[list[Any]] = []
    for pair in comparison.pairs:
        row: list[Any] = [f"{pair.one}, {pair.other}", _shaded(pair.signs.fraction)]
        row += [_two(x) for x in (pair.weight_cosine, pair.update_cosine, pair.domain_cosine)]
        row += [_two(pair.effect.cosine), _two(pair.effect.spearman)] if pair.effect else []
        rows.append(row)
    print_table("Pairs", headings, rows, numbers=range(1, len(headings)))
    if len(comparison.names) > 2:
        matrix = comparison.matrix()
        square = [
            [name, *(Text("") if i == j else _shaded(matrix[i, j]) for j in range(len(comparison.names)))]
            for i, name in enumerate(comparison.names)
        ]
        print_table("Signs that differ", ["", *comparison.names], square, numbers=range(1, len(square) + 1))
        fraction = f"{comparison.signs.fraction:.2f}"
        print_line(f"all {len(comparison.names)} together: {fraction} of the signs are not unanimous")
    if by is not None:
        each = {f"{p.one}, {p.other}": _parts(p.signs, by) for p in comparison.pairs}
        if len(comparison.names) > 2:
            each["all together"] = _parts(comparison.signs, by)
        places = list(next(iter(each.values())))
        cells = [[name, *(_shaded(parts[p]) for p in places)] for name, parts in each.items()]
        print_table(f"Signs that differ, by {by}", ["pair", *places], cells, numbers=range(1, len(places) + 1))
    print_line(comparison.sentence)


def _parts(signs: Any, by: str) -> dict[str, float]:
    fractions = signs.by_layer() if by == "layer" else signs.by_site()
    return {str(place): fraction for place, fraction in fractions.items()}


def _shaded(fraction: float) -> Any:
    from rich.text import Text

    from scions.mixing.conflict import CONFLICT

    return Text(f"{fraction:.2f}", style="red" if fraction >= CONFLICT else "green")


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
