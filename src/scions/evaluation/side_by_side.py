"""Score a base, adapters and other encoders on the same rows: intervals, and differences to the base."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scions.data import Shape, Table, fingerprint, read, read_splits
from scions.deprecation import renamed_arguments, warn
from scions.encoder import loading
from scions.encoder.base_info import space_of
from scions.errors import UsageError
from scions.evaluation import tasks
from scions.evaluation.bootstrap import Difference, Interval, PairedScore
from scions.evaluation.paired_test import holm
from scions.evaluation.scores import Evaluation
from scions.evaluation.sts import evaluate_sts, read_sts
from scions.store import Manifest, base_id
from scions.store.names import BASE
from scions.vectors.reader import VectorFile, known_documents, read_vectors
from scions.version import __version__

_ROWS = "rows"


@dataclass(frozen=True)
class EncoderScores:
    """The scores of one encoder; all figures are x100, with 95 % intervals.

    Attributes:
        name: as it was asked for: an adapter's name or folder, ``base``, a model's folder or id.
        label: the same for people; of the base, its id too.
        rows: on the rows of ``data``; None where none were given.
        sts: of the general similarity tasks by name, and of their mean ``STS7``; empty where none were given.
        adjusted: p values of the differences on ``rows`` and on ``STS7``, adjusted for the number of encoders (Holm).
    """

    name: str
    label: str
    rows: PairedScore | None
    sts: dict[str, PairedScore]
    adjusted: dict[str, float] = field(default_factory=dict)

    @property
    def is_base(self) -> bool:
        """Whether this is the base without an adapter."""
        return self.name == BASE

    @property
    def score(self) -> Interval:
        """The primary metric on ``data``; where there is none, ``STS7``."""
        return self._primary.interval()

    @property
    def difference(self) -> Difference | None:
        """`score` minus the reference's, on the same rows; None for the reference itself."""
        return self.difference_on(_ROWS if self.rows is not None else "STS7")

    def difference_on(self, task: str) -> Difference | None:
        """The difference on ``"rows"`` or ``"STS7"``, its ``p`` adjusted for the number of encoders compared."""
        score = self.rows if task == _ROWS else self.sts[task]
        difference = None if score is None else score.difference
        return difference and replace(difference, p=self.adjusted.get(task, difference.p))

    @property
    def _primary(self) -> PairedScore:
        return self.rows if self.rows is not None else self.sts["STS7"]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON has them; undefined bounds are None."""
        entry: dict[str, Any] = {"name": self.label, "is_base": self.is_base}
        if self.rows is not None:
            metrics = {name: _numbers(self.rows.interval(name)) for name in self.rows.evaluation.scores}
            entry |= {"primary": self.rows.metric, "metrics": metrics, "difference": _numbers(self.difference)}
        if self.sts:
            entry["sts"] = {name: _numbers(score.interval()) for name, score in self.sts.items()}
            entry["sts_difference"] = _numbers(self.difference_on("STS7"))
        return entry


@dataclass(frozen=True)
class SideBySide:
    """Encoders on the same rows. ``side_by_side["legal"]`` is one of them.

    Attributes:
        encoders: in the order asked for.
        reference: the encoder that differences are taken to: the base, or the first where the base is not among them.
        table: the rows; None where only similarity tasks were scored.
        sts: folder of the similarity tasks; None where none were scored.
        notes: remarks on the rows.
    """

    encoders: tuple[EncoderScores, ...]
    reference: EncoderScores
    table: Table | None
    sts: Path | None
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[EncoderScores]:
        return iter(self.encoders)

    def __getitem__(self, name: str) -> EncoderScores:
        for encoder in self.encoders:
            if encoder.name == name:
                return encoder
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON has them."""
        result: dict[str, Any] = {"scions": __version__, "encoders": [encoder.to_dict() for encoder in self.encoders]}
        if self.table is not None:
            result["data"] = {
                "source": self.table.source,
                "shape": self.table.shape.value,
                "rows": len(self.table),
                "fingerprint": fingerprint(self.table),
            }
        if self.sts is not None:
            result["sts"] = str(self.sts)
        return result


@renamed_arguments(encoder="encoders", table="data")
def evaluate(
    encoders: Sequence[str | Path] | str | Path,
    data: str | Path | Table | None = None,
    *,
    part: str | None = None,
    sts: str | Path | None = None,
    few_shot: str | Path | Table | None = None,
    base: str | None = None,
    shape: str | None = None,
    columns: dict[str, str] | None = None,
    vectors: str | Path | None = None,
    adapters: str | Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
    on_stage: Callable[[str], None] | None = None,
) -> SideBySide:
    """Score encoders on the same rows, each with 95 % intervals and its difference to the base, or to the first.

    The metrics follow from the data's shape. One encoder is in memory at a time.

    Args:
        encoders: adapters by name or folder, ``"base"``, and SentenceTransformers by folder or id on the Hub.
        data: held-out rows: a file, a folder, a BEIR folder, ``docstrings``, or a table that was read.
        part: which part of a folder to score; None: ``test``.
        sts: folder of the seven general similarity tasks.
        few_shot: labeled training rows, for few-shot accuracy.
        base: the base to load; None: the adapters' own.
        shape, columns: settle what reading the data leaves ambiguous.
        vectors: vectors of the corpus' documents, in its order, with their record.
        adapters: folder of the adapters; None: `scions.store.default_root`.
        batch_size: texts encoded together.
        seed: of the rows drawn from a large labeled table, and of its clusterings.
        on_stage: called with what is being done.

    Raises:
        UsageError: nothing to score, adapters of different bases beside the base, or an option the data cannot use.
        DataError: rows or vectors that cannot be read.
        AdapterError: an adapter that does not exist, is damaged, or belongs to another base.
    """
    if isinstance(data, Table) and callable(getattr(encoders, "encode", None)):
        warn("scions.evaluate(encoder, table) is deprecated; use scions.evaluation.evaluate(encoder, table)", 4)
        return tasks.evaluate(encoders, data, batch_size=batch_size, seed=seed, few_shot=few_shot)  # type: ignore
    stage = on_stage or (lambda text: None)
    names = list(dict.fromkeys(str(n) for n in ([encoders] if isinstance(encoders, (str, Path)) else encoders)))
    if data is None and sts is None:
        raise UsageError("nothing to score on: give `data=...`, or `sts=...`, or both")
    if not names:
        raise UsageError("nothing to score: name an adapter or a model")
    # Files are checked before anything is loaded or scored.
    stage("reading")
    table = data if data is None or isinstance(data, Table) else read_part(str(data), part, shape, columns)
    shots = few_shot if few_shot is None or isinstance(few_shot, Table) else _few_shot(str(few_shot), table)
    if sts is not None:
        read_sts(sts)
    known = None if vectors is None else read_vectors(vectors)
    if known is not None and (table is None or table.shape is not Shape.RETRIEVAL):
        raise UsageError(
            f"`vectors=...` are those of a corpus, which only retrieval data (a BEIR folder) has, {_given(table)}"
        )
    asked = _resolved(names, base, None if adapters is None else Path(adapters))
    if known is not None and table is not None:
        stage("checking the vectors")
        for encoder in asked:  # all of them before any is scored
            encoder.with_documents(encoder.load(), known, table)
    evaluations: list[dict[str, Evaluation]] = []
    for encoder in asked:
        stage(f"scoring {encoder.label}")
        model = encoder.load()
        scores = {} if sts is None else evaluate_sts(model, sts, batch_size=batch_size)
        if table is not None:
            scored = model if known is None else encoder.with_documents(model, known, table)
            scores[_ROWS] = tasks.evaluate(scored, table, batch_size=batch_size, seed=seed, few_shot=shots)
        evaluations.append(scores)
    first = names.index(BASE) if BASE in names else 0
    results = []
    for i, encoder in enumerate(asked):
        reference = {} if i == first else evaluations[first]
        paired = {name: PairedScore(score, reference.get(name)) for name, score in evaluations[i].items()}
        results.append(EncoderScores(encoder.name, encoder.label, paired.pop(_ROWS, None), paired))
    results = _adjusted(results)
    notes = [] if table is None else [*_trained_on(table, asked), *table.notes]
    if len(results) > 2:
        notes.append(f"p values are adjusted for {len(results) - 1} comparisons (Holm)")
    differences = [(encoder.label, encoder.difference) for encoder in results]
    notes += [f"{label}: {d.limits}" for label, d in differences if d is not None and d.limits]
    return SideBySide(tuple(results), results[first], table, None if sts is None else Path(sts), tuple(notes))


def read_part(data: str, part: str | None, shape: str | None, columns: dict[str, str] | None) -> Table:
    """Read the rows to score: a file, one part of a folder, or one of the built-in corpus.

    Raises:
        UsageError: a part that does not exist, or a part of a file.
        DataError: rows that cannot be read.
    """
    if data.partition(":")[0] == "docstrings" and not Path(data).exists():
        if part not in (None, "train", "dev", "test"):
            raise UsageError(f"`part={part!r}`: the built-in corpus has train, dev and test")
        return getattr(read_splits(data), part or "test")  # type: ignore[no-any-return]
    if part is not None and Path(data).is_file():
        raise UsageError(f"`part={part!r}`: {data} is a file and has no parts; a file is scored as a whole")
    return read(data, shape=shape, columns=columns, part=part or "test")


@dataclass(frozen=True)
class _Asked:
    """One encoder before it is loaded; ``folder`` and ``manifest`` are an adapter's."""

    name: str
    label: str
    base: str | None
    adapters: Path | None
    folder: Path | None = None
    manifest: Manifest | None = None

    def load(self) -> Any:
        return loading.load_encoder(self.name, base=self.base, adapters=self.adapters)

    def with_documents(self, model: Any, vectors: VectorFile, table: Table) -> Any:
        """Return the model with these vectors for its documents. Raises ScionsError where they are not its own."""
        space = space_of(model, self.folder).fingerprint
        texts, texts_name = list((table.corpus or {}).values()), f"the corpus of {table.source}"
        return known_documents(vectors, texts, model, space, encoder_name=self.label, texts_name=texts_name)


def _few_shot(path: str, table: Table | None) -> Table:
    if table is None or table.shape is not Shape.LABELLED:
        raise UsageError(f"`few_shot=...` serves labelled data only, {_given(table)}")
    return read(path, shape="labelled", part="train")


def _given(table: Table | None) -> str:
    return "without `data=...`" if table is None else f"and {table.source} is {table.shape.value}"


def _resolved(names: Sequence[str], base: str | None, adapters: Path | None) -> list[_Asked]:
    folders = {name: loading.adapter_folder(name, adapters)[0] for name in names if name != BASE}
    manifests = {name: Manifest.read(folder) for name, folder in folders.items() if folder is not None}
    bases = sorted({manifest.base.id for manifest in manifests.values()})
    if BASE in names and base is None and len(bases) > 1:
        raise UsageError(
            f"the adapters stand on different bases ({', '.join(bases)}): score them one base at a time, or side by "
            "side without the base"
        )
    own = base if base is not None or len(bases) != 1 else bases[0]
    return [
        _Asked(name, f"base: {base_id(own)}", own, adapters)
        if name == BASE
        else _Asked(name, name, base, adapters, folders[name], manifests.get(name))
        for name in names
    ]


def _adjusted(results: Sequence[EncoderScores]) -> list[EncoderScores]:
    p: list[dict[str, float]] = [{} for _ in results]
    for task in (_ROWS, "STS7"):
        scores = [encoder.rows if task == _ROWS else encoder.sts.get(task) for encoder in results]
        compared = [(i, s.difference.p) for i, s in enumerate(scores) if s is not None and s.difference is not None]
        for (i, _), value in zip(compared, holm([value for _, value in compared]), strict=True):
            p[i][task] = value
    return [replace(encoder, adjusted=values) for encoder, values in zip(results, p, strict=True)]


def _trained_on(table: Table, asked: Sequence[_Asked]) -> list[str]:
    # A manifest holds the file's name alone, and the parts of a folder or of the built-in corpus are disjoint.
    source = Path(table.source)
    return [
        f"{encoder.label} was trained on a file called {source.name}; if it is this one, the figures flatter it"
        for encoder in asked
        if source.is_file() and encoder.manifest is not None and encoder.manifest.data.source == source.name
    ]


def _numbers(value: Interval | None) -> dict[str, float | None] | None:
    if value is None:
        return None
    numbers = {"value": value.value, "low": value.low, "high": value.high}
    if isinstance(value, Difference):
        numbers["p"] = value.p
    return {name: float(number) if math.isfinite(number) else None for name, number in numbers.items()}
