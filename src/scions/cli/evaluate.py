"""`scions evaluate`: a base, adapters and any other encoders side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scions.cli.options import AdaptersFolder, DataShape
from scions.errors import UsageError

if TYPE_CHECKING:
    from scions.data import Table
    from scions.evaluation import Evaluation
    from scions.vectors.reader import VectorFile


def evaluate(
    encoders: Annotated[
        list[str] | None,
        typer.Argument(help="Adapters by name or folder; SentenceTransformers by folder or id.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Held-out rows: a file, a folder, a BEIR folder or docstrings.", show_default=False),
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="Which part of a folder: train, dev or test.", show_default="test")
    ] = None,
    sts: Annotated[
        Path | None, typer.Option(help="Folder of the seven general similarity tasks.", show_default=False)
    ] = None,
    few_shot: Annotated[
        str | None, typer.Option(help="Labelled training rows, for few-shot accuracy.", show_default=False)
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base to hold them against.", show_default="the adapters' own")
    ] = None,
    no_base: Annotated[bool, typer.Option("--no-base", help="Leave the base out.")] = False,
    shape: DataShape = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="Which column is which: anchor=q,positive=a.", show_default="recognised by name"),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(help="Vectors of the corpus' documents, in its order, with their record.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts encoded together.")] = 64,
    adapters: AdaptersFolder = None,
    output_json: Annotated[
        Path | None, typer.Option(help="Write all figures to this file too.", show_default=False)
    ] = None,
) -> None:
    """Score encoders on the same rows, with 95 % intervals and the paired difference to the base.

    The metrics follow from the data's shape: nDCG, MRR, MAP and recall, Spearman, average precision, v-measure.

    \b
    Examples:
      scions evaluate legal --data legal-test.jsonl
      scions evaluate legal medical all-mpnet-base-v2 --data nfcorpus/
      scions evaluate legal --sts sts/ --output-json figures.json
      scions evaluate legal-q --data nfcorpus/ --vectors index.npy
    """
    from scions.cli.options import parse_columns
    from scions.cli.progress import status
    from scions.evaluation.sts import read_sts

    if data is None and sts is None:
        raise UsageError("nothing to score on: give --data FILE, or --sts DIR, or both")
    if not encoders and no_base:
        raise UsageError("nothing to score: name an adapter or a model, or leave out --no-base")
    if output_json is not None and output_json.is_dir():
        raise UsageError(f"--output-json {output_json}: is a folder; a file is to be written")
    given = list(dict.fromkeys(encoders or []))
    # Whatever may be wrong with a file shows before anything is loaded or scored.
    with status("reading"):
        table = None if data is None else read_part(data, part, shape, parse_columns(columns))
        shots = None if few_shot is None else _few_shot(few_shot, table)
        if sts is not None:
            read_sts(sts)
        known = None if vectors is None else _document_vectors(vectors, table)
    reference, targets = _targets(given, base, no_base, adapters)
    if table is not None:
        _warn_of_training_rows(table, targets)
    both = [*([reference] if reference else []), *targets]
    if known is not None:
        with status("checking the vectors"):
            for target in both:  # all of them before any is scored
                known.checked(_loaded(target, adapters), target)
    for target in both:
        with status(f"scoring {target.label}"):
            _score(target, table, sts, shots, batch_size, adapters, known)
    _print(reference, targets, table)
    if output_json is not None:
        _write(output_json, reference, targets, table, sts)


def read_part(data: str, part: str | None, shape: str | None, columns: dict[str, str] | None) -> Table:
    """The rows to score: a file as it is, one part of a folder, or of the built-in corpus."""
    from scions.data import read, read_splits

    if data.partition(":")[0] == "docstrings" and not Path(data).exists():
        if part not in (None, "train", "dev", "test"):
            raise UsageError(f"--part {part!r}: the built-in corpus has train, dev and test")
        return getattr(read_splits(data), part or "test")  # type: ignore[no-any-return]
    folder = Path(data).is_dir()
    if part is not None and Path(data).is_file():
        raise UsageError(f"--part {part}: {data} is a file and has no parts; a file is scored as a whole")
    return read(data, shape=shape, columns=columns, part=(part or "test") if folder else None)


def _few_shot(path: str, table: Table | None) -> Table:
    from scions.data import Shape, read

    if table is None or table.shape is not Shape.LABELLED:
        found = "without --data" if table is None else f"and {table.source} is {table.shape.value}"
        raise UsageError(f"--few-shot serves labelled data only, {found}")
    return read(path, shape="labelled", part="train" if Path(path).is_dir() else None)


@dataclass(frozen=True)
class CorpusVectors:
    """Vectors that are there already, of the documents of a retrieval table."""

    file: VectorFile
    texts: list[str]
    source: str

    def checked(self, encoder: Any, target: _Target) -> Any:
        """``encoder`` with these vectors for its documents; raises ScionsError where they are not its own."""
        from scions.encoder.base_info import space_of
        from scions.vectors.reader import known_documents

        space = space_of(encoder, target.folder).fingerprint
        return known_documents(
            self.file, self.texts, encoder, space, encoder_name=target.label, texts_name=f"the corpus of {self.source}"
        )


def _document_vectors(path: Path, table: Table | None) -> CorpusVectors:
    from scions.data import Shape
    from scions.vectors.reader import read_vectors

    if table is None or table.shape is not Shape.RETRIEVAL:
        found = "without --data" if table is None else f"and {table.source} is {table.shape.value}"
        raise UsageError(f"--vectors are those of a corpus, which only retrieval data (a BEIR folder) has, {found}")
    return CorpusVectors(read_vectors(path), list((table.corpus or {}).values()), table.source)


@dataclass
class _Target:
    """One encoder: how it is called, what loads it, and what came of it; ``folder`` and ``manifest`` of an adapter."""

    label: str
    name: str | None
    base: str | None
    manifest: Any = None
    folder: Path | None = None
    scores: Evaluation | None = None
    sts: dict[str, Evaluation] = field(default_factory=dict)


def _targets(
    given: Sequence[str], base: str | None, no_base: bool, root: Path | None
) -> tuple[_Target | None, list[_Target]]:
    from scions.encoder.loading import BASE, adapter_folder
    from scions.store import Manifest, base_id

    targets = []
    for name in given:
        if name == BASE:
            no_base = False
            continue
        folder, _ = adapter_folder(name, root)
        targets.append(_Target(name, name, base, None if folder is None else Manifest.read(folder), folder))
    if no_base:
        return None, targets
    own = {target.manifest.base.id for target in targets if target.manifest is not None}
    if base is None and len(own) > 1:
        raise UsageError(
            f"the adapters stand on different bases ({', '.join(sorted(own))}): score them one base at a time, or "
            "side by side with --no-base"
        )
    chosen = base if base is not None else next(iter(own), None)
    return _Target(f"base: {base_id(chosen)}", BASE, chosen), targets


def _loaded(target: _Target, root: Path | None) -> Any:
    from scions.encoder.loading import load_encoder

    return load_encoder(target.name, base=target.base, root=root)


def _score(
    target: _Target,
    table: Table | None,
    sts: Path | None,
    shots: Table | None,
    batch_size: int,
    root: Path | None,
    known: CorpusVectors | None = None,
) -> None:
    from scions.evaluation import evaluate as score
    from scions.evaluation import evaluate_sts

    encoder = _loaded(target, root)
    if table is not None:
        asked = encoder if known is None else known.checked(encoder, target)
        target.scores = score(asked, table, batch_size=batch_size, few_shot=shots)
    if sts is not None:
        target.sts = evaluate_sts(encoder, sts, batch_size=batch_size)


def _warn_of_training_rows(table: Table, targets: Sequence[_Target]) -> None:
    from scions.cli.render import print_note

    # A manifest keeps the file's name alone, and a folder's or the built-in corpus' parts are disjoint.
    source = Path(table.source)
    for target in targets:
        if source.is_file() and target.manifest is not None and target.manifest.data.source == source.name:
            print_note(
                f"{target.label} was trained on a file called {source.name}; if it is this one, the figures flatter it"
            )


def _print(reference: _Target | None, targets: Sequence[_Target], table: Table | None) -> None:
    from scions.cli.render import figure, print_note, print_table, signed
    from scions.cli.render import table as draw
    from scions.evaluation import STS_TASKS, interval

    shown = [*([reference] if reference else []), *targets]
    if table is not None and shown[0].scores is not None:
        primary = shown[0].scores.primary
        others = [name for name in shown[0].scores.scores if name != primary]
        rows = []
        for target in shown:
            scores: Any = target.scores
            difference = _difference(reference, target)
            cells = [f"{scores.scores[name]:.2f}" if name in scores.scores else "-" for name in others]
            gain = signed(difference) if difference is not None else ""
            rows.append((target.label, figure(interval(scores)), gain, *cells))
        title = f"{table.source}: {shown[0].scores.n} units of shape {table.shape.value}, 95 % intervals"
        headings = ("encoder", primary, "difference to the base", *others)
        print_table(draw(title, headings, rows, numbers=range(1, len(headings))))
        for note in table.notes:
            print_note(note)
    if shown[0].sts:
        rows = []
        for target in shown:
            tasks = [f"{target.sts[name].value:.2f}" for name in STS_TASKS]
            difference = _difference(reference, target, sts=True)
            gain = signed(difference) if difference is not None else ""
            rows.append((target.label, *tasks, figure(interval(target.sts["STS7"])), gain))
        headings = ("encoder", *STS_TASKS, "STS7", "difference to the base")
        title = "General similarity tasks, Spearman x100"
        print_table(draw(title, headings, rows, numbers=range(1, len(headings))))


def _difference(reference: _Target | None, target: _Target, sts: bool = False) -> Any:
    from scions.evaluation import paired_difference

    if reference is None or target is reference:
        return None
    if sts:
        return paired_difference(reference.sts["STS7"], target.sts["STS7"])
    if reference.scores is None or target.scores is None:
        return None
    return paired_difference(reference.scores, target.scores)


def _write(
    path: Path, reference: _Target | None, targets: Sequence[_Target], table: Table | None, sts: Path | None
) -> None:
    import json

    from scions.data import fingerprint
    from scions.store import write_file
    from scions.version import __version__

    found: dict[str, Any] = {"scions": __version__, "encoders": []}
    if table is not None:
        found["data"] = {
            "source": table.source,
            "shape": table.shape.value,
            "rows": len(table),
            "fingerprint": fingerprint(table),
        }
    if sts is not None:
        found["sts"] = str(sts)
    for target in [*([reference] if reference else []), *targets]:
        entry: dict[str, Any] = {"name": target.label, "is_base": target is reference}
        if target.scores is not None:
            entry |= {"primary": target.scores.primary, "metrics": _figures(target.scores)}
            entry["difference"] = _plain(_difference(reference, target))
        if target.sts:
            entry["sts"] = {name: _plain_score(one) for name, one in target.sts.items()}
            entry["sts_difference"] = _plain(_difference(reference, target, sts=True))
        found["encoders"].append(entry)
    write_file(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _figures(scores: Evaluation) -> dict[str, Any]:
    from scions.evaluation import interval

    return {name: _plain(interval(scores, name)) for name in scores.scores}


def _plain_score(scores: Evaluation) -> Any:
    from scions.evaluation import interval

    return _plain(interval(scores))


def _plain(value: Any) -> Any:
    """An interval as an object of plain numbers; bounds that are undefined are null."""
    if value is None:
        return None
    numbers = {"value": value.value, "low": value.low, "high": value.high}
    return {name: float(number) if number == number else None for name, number in numbers.items()}
