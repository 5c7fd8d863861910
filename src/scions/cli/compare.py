"""`scions compare`: what adapters have to do with each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scions.cli.options import AdaptersFolder
from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.mixing import Comparison


def compare(
    adapters: Annotated[list[str], typer.Argument(help="Two adapters or more, by name or folder.", show_default=False)],
    heat_map: Annotated[
        Path | None, typer.Option("--heat-map", "-o", help="Write a picture here, as PNG.", show_default=False)
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Show fractions by layer or by site too.", show_default="all together")
    ] = None,
    effects: Annotated[
        bool, typer.Option("--effects", help="Encode texts with all of them: do they change similarities alike?")
    ] = False,
    texts: Annotated[
        str | None, typer.Option(help="The texts for --effects.", show_default="built-in general texts")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base, for --effects: a folder or an id.", show_default="the adapters' own")
    ] = None,
    folder: AdaptersFolder = None,
) -> None:
    """Show how often adapters' weights contradict each other in sign, and who can be mixed with whom.

    Layer norms do not count. The fraction of a set is the share of weights whose signs are not unanimous.

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
        found = run(adapters, texts=chosen, base=base, adapters=folder)
    _print(found, by)
    for note in found.notes:
        print_note(note)
    if heat_map is not None:
        from scions.mixing.conflict import CONFLICT
        from scions.publishing.plots import draw_matrix
        from scions.store import write_file

        picture = draw_matrix(found.names, found.matrix(), "fraction of sign difference", 2 * CONFLICT)
        print_line(f"heat map: {write_file(heat_map, picture)}")


def _texts(path: str | None, most: int = 300) -> list[str]:
    from scions.data import drift_pairs, read

    if path is not None:
        return read(path).texts()[:most]
    return list(dict.fromkeys(text for pair in drift_pairs() for text in pair))[:most]


def _print(found: Comparison, by: str | None) -> None:
    from rich.text import Text

    from scions.cli.render import print_line, print_table, table

    headings = ["pair", "signs differ", "weights' cosine", "updates' cosine", "domains' cosine"]
    with_effects = any(pair.effect for pair in found.pairs)
    headings += ["effects' cosine", "effects' Spearman"] if with_effects else []
    rows: list[list[Any]] = []
    for pair in found.pairs:
        row: list[Any] = [f"{pair.one}, {pair.other}", _shaded(pair.signs.fraction)]
        row += [_two(x) for x in (pair.weight_cosine, pair.update_cosine, pair.domain_cosine)]
        row += [_two(pair.effect.cosine), _two(pair.effect.spearman)] if pair.effect else []
        rows.append(row)
    print_table(table("Pairs", headings, rows, numbers=range(1, len(headings))))
    if len(found.names) > 2:
        matrix = found.matrix()
        square = [
            [name, *(Text("") if i == j else _shaded(matrix[i, j]) for j in range(len(found.names)))]
            for i, name in enumerate(found.names)
        ]
        print_table(table("Signs that differ", ["", *found.names], square, numbers=range(1, len(square) + 1)))
        print_line(f"all {len(found.names)} together: {found.signs.fraction:.2f} of the signs are not unanimous")
    if by is not None:
        each = {f"{p.one}, {p.other}": _parts(p.signs, by) for p in found.pairs}
        if len(found.names) > 2:
            each["all together"] = _parts(found.signs, by)
        places = list(next(iter(each.values())))
        cells = [[name, *(_shaded(parts[p]) for p in places)] for name, parts in each.items()]
        print_table(table(f"Signs that differ, by {by}", ["pair", *places], cells, numbers=range(1, len(places) + 1)))
    print_line(found.sentence)


def _parts(signs: Any, by: str) -> dict[str, float]:
    found = signs.by_layer() if by == "layer" else signs.by_site()
    return {str(place): fraction for place, fraction in found.items()}


def _shaded(fraction: float) -> Any:
    from rich.text import Text

    from scions.mixing.conflict import CONFLICT

    return Text(f"{fraction:.2f}", style="red" if fraction >= CONFLICT else "green")


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
