"""Which column of a file is which: usual names are recognised, and doubts are put to the user."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from scions.data.files import Rows, excerpt
from scions.data.shapes import COLUMNS, Shape
from scions.errors import DataError, UsageError


class AmbiguousColumns(DataError):
    """The file's columns fit several shapes, or none; `shape` or `columns` settles it."""


_FIRST = ("anchor", "query", "sentence1", "sentence_1", "sentence_a", "premise")
_FIRST_NUMBERED = ("text1", "text_1", "text_a", "question1", "question_1")
_SECOND = ("positive", "positives", "pos", "sentence2", "sentence_2", "sentence_b", "hypothesis")
_SECOND_NUMBERED = ("text2", "text_2", "text_b", "text_pair", "question2", "question_2")
# Per role the names in tiers: a name of an earlier tier wins over one of a later tier ("context" beside
# "sentence2" is an extra column), two names of one tier are a doubt.
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "text": (("text", "sentence", "content", "document", "body", "utterance", "doc"),),
    "first": ((*_FIRST, *_FIRST_NUMBERED), ("question", "prompt"), ("title",)),
    "second": ((*_SECOND, *_SECOND_NUMBERED), ("answer", "passage", "response"), ("context",)),
    "third": (("negative", "neg", "negatives", "hard_negative", "hard_negatives"), ("negative_1",)),
    "score": (("score", "similarity", "sim", "rating", "similarity_score"),),
    "label": (("label", "is_duplicate"), ("intent", "category", "class", "topic")),
    "group": (("group",),),
}
_WEAK = {"title", "context"}  # stand beside texts of many kinds, so they never outvote a column called text
_DESCRIBES_A_PAIR = {
    "intent",
    "category",
    "topic",
}  # beside a pair these tell what it is about, not how it is judged
_NOT_TEXT = {"id", "_id", "uuid", "url", "index", "idx"}
_ROLES = {
    **{"text": "text", "anchor": "first", "query": "first", "sentence1": "first", "positive": "second"},
    **{"sentence2": "second", "negative": "third", "score": "score", "label": "label", "group": "group"},
}
_FILE_SHAPES = tuple(shape for shape in Shape if shape is not Shape.RETRIEVAL)
BINARY_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass
class RecognizedColumns:
    """The shape, and the file's column for each canonical name (`group` too, where there is one)."""

    shape: Shape
    columns: dict[str, str]
    notes: list[str] = field(default_factory=list)


def plain(name: str) -> str:
    """A column name as the table of usual names writes it."""
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def number(value: object) -> float | None:
    """The value as a float where it is a number or writes one; booleans are none."""
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def ambiguous(rows: Rows, why: str) -> NoReturn:
    """Raise AmbiguousColumns with the columns found, the first row, and the flags that settle it."""
    sample = ", ".join(f"{name}={excerpt(rows.rows[0].get(name), 40)}" for name in rows.columns)
    raise AmbiguousColumns(
        f"{rows.path}: {why}. Columns found: {', '.join(rows.columns) or 'none'}. First row: {sample}. "
        "Settle it with --columns anchor=COL,positive=COL (or text=, label=, sentence1=, sentence2=, "
        f"score=, query=, negative=, group=) and/or --shape {'|'.join(shape.value for shape in _FILE_SHAPES)}"
    )


def _checked(rows: Rows, mapping: Mapping[str, str], shape: Shape | None) -> list[Shape]:
    for canonical, column in mapping.items():
        if canonical not in _ROLES:
            raise UsageError(f"columns: {canonical!r} is no column of Scions; they are: {', '.join(_ROLES)}")
        if column not in rows.columns:
            near = difflib.get_close_matches(column, rows.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{rows.path}: no column {column!r}{hint}. Columns found: {', '.join(rows.columns)}")
    names = set(mapping) - {"group"}
    allowed = [one for one in ([shape] if shape else _FILE_SHAPES) if names <= set(COLUMNS[one])]
    if not allowed:
        shapes = "; ".join(f"{one.value}: {', '.join(COLUMNS[one])}" for one in ([shape] if shape else _FILE_SHAPES))
        raise UsageError(f"columns {', '.join(sorted(names))} do not belong to one shape ({shapes})")
    return allowed


class _Finder:
    """The columns that may play each role; a doubt is raised only when the role is needed."""

    def __init__(self, rows: Rows, mapping: Mapping[str, str]) -> None:
        self.rows = rows
        self.mapped = set(mapping.values())
        self.notes: list[str] = []
        self.roles: dict[str, list[str]] = {role: self._named(role) for role in _NAMES}
        for canonical, column in mapping.items():
            self.roles[_ROLES[canonical]] = [column]

    def _named(self, role: str) -> list[str]:
        for tier in _NAMES[role]:
            hits = [name for name in self.rows.columns if plain(name) in tier and name not in self.mapped]
            if hits:
                return hits
        return []

    def weak(self, role: str) -> bool:
        columns = self.roles[role]
        return all(plain(name) in _WEAK and name not in self.mapped for name in columns)

    def values(self, role: str) -> list[Any]:
        column = self.one(role)
        return [row.get(column) for row in self.rows.rows if row.get(column) not in (None, "")]

    def one(self, role: str) -> str:
        columns = self.roles[role]
        if len(columns) > 1:
            ambiguous(self.rows, f"columns {' and '.join(map(repr, columns))} could both be meant")
        return columns[0]

    def unknown_texts(self) -> list[str]:
        """Columns of no role whose first value is text and no number."""
        known = {name for columns in self.roles.values() for name in columns}
        texts = []
        for name in self.rows.columns:
            if name in known or plain(name) in _NOT_TEXT or plain(name).endswith("_id"):
                continue
            value = next((row[name] for row in self.rows.rows if row.get(name) not in (None, "")), None)
            if isinstance(value, (str, list)) and number(value) is None:
                texts.append(name)
        return texts

    def unknown_judgement(self) -> str | None:
        """A column of no role that holds both 0 and 1 and nothing else: trained as pairs, the 0s would be positives."""
        known = {name for columns in self.roles.values() for name in columns}
        for name in self.rows.columns:
            if name not in known and plain(name) not in _NOT_TEXT and not plain(name).endswith("_id"):
                found = set()
                for row in self.rows.rows:
                    found.add(BINARY_LABELS.get(str(row.get(name)).strip().casefold()))
                    if None in found:
                        break
                if found == {0, 1}:
                    return name
        return None

    def settle_pair(self) -> None:
        """Let a column called text stand in for the missing side of a pair."""
        first, second, text = (self.roles[role] for role in ("first", "second", "text"))
        if not text or bool(first) == bool(second):
            return
        if first:
            if self.weak("first") and self.roles["label"]:
                ambiguous(self.rows, f"{first[0]!r} and {text[0]!r} may be a pair, or one text with a label")
            self.roles["second"] = text
        elif not self.weak("second"):
            self.roles["first"] = text

    def settle_text(self, told: bool) -> None:
        """Find the one text column where no column is called text; `told`: the user named the shape."""
        sides = [*self.roles["first"], *self.roles["second"]]
        if self.roles["text"]:
            return
        unknown = self.unknown_texts()
        if len(sides) == 1:
            if unknown and not self.roles["label"] and not told:
                ambiguous(self.rows, f"{sides[0]!r} is one side of a pair, and no other column has a known name")
            self.roles["text"] = sides
        elif not sides and len(unknown) == 1:
            self.roles["text"] = unknown
            self.notes.append(f"column {unknown[0]!r} taken as the text")
        else:
            hint = "" if sides else "; where the file has no header line, add one"
            ambiguous(self.rows, f"cannot tell which column is the text{hint}")


def _judged(finder: _Finder) -> Shape:
    """The shape of a pair with a label: BINARY; SCORED where it is a score; PAIRS where only a topic."""
    column = finder.one("label")
    values = finder.values("label")
    if all(str(value).strip().casefold() in BINARY_LABELS for value in values):
        return Shape.BINARY
    if plain(column) in _DESCRIBES_A_PAIR and column not in finder.mapped:
        return Shape.PAIRS
    numbers = [number(value) for value in values]
    if all(one is not None for one in numbers):
        if any(one is not None and math.isfinite(one) and one != int(one) for one in numbers):
            finder.roles["score"] = [column]
            finder.notes.append(f"column {column!r} holds fractions: read as the score")
            return Shape.SCORED
        ambiguous(
            finder.rows,
            f"column {column!r} holds whole numbers other than 0 and 1: if they are grades of similarity say "
            f"--columns score={column}; if they are classes, keep the rows that match as positive pairs",
        )
    raise not_binary(finder.rows.path, column, values)


def not_binary(path: str, column: str, values: list[Any]) -> DataError:
    """The error for a pair whose label is neither 0/1 nor a score."""
    some = ", ".join(excerpt(value, 20) for value in list(dict.fromkeys(map(str, values)))[:5])
    return DataError(
        f"{path}: column {column!r} labels pairs with {some}; Scions trains on scored pairs (a number), "
        "on 0/1 pairs, or on positive pairs. Convert it: write 1 for the label that means 'match' and 0 for "
        "the rest, or keep only the rows with that label and leave the column out"
    )


def _choose(finder: _Finder, allowed: list[Shape]) -> Shape:
    if len(allowed) == 1:
        return allowed[0]
    roles = finder.roles
    if not (roles["first"] and roles["second"]):
        guess = Shape.LABELLED if roles["label"] else Shape.TEXTS
    elif any(isinstance(value, list) for role in ("second", "third") if roles[role] for value in finder.values(role)):
        guess = Shape.CANDIDATES
    elif roles["third"]:
        guess = Shape.TRIPLETS
    elif roles["score"] and roles["label"] and {Shape.SCORED, Shape.BINARY} <= set(allowed):
        if plain(finder.one("label")) not in _DESCRIBES_A_PAIR:
            ambiguous(finder.rows, f"a pair has both {finder.one('score')!r} and {finder.one('label')!r}")
        guess = Shape.SCORED
    elif roles["score"] and Shape.SCORED in allowed:
        guess = Shape.SCORED
    elif roles["label"] and {Shape.SCORED, Shape.BINARY} & set(allowed):
        guess = _judged(finder)
    else:
        guess = Shape.PAIRS
        judges = finder.unknown_judgement() if Shape.BINARY in allowed and Shape.PAIRS in allowed else None
        if judges is not None:
            ambiguous(
                finder.rows,
                f"column {judges!r} beside a pair holds 0 and 1: if it judges the pair say --columns label={judges}, "
                "if it does not, --shape pairs",
            )
    if guess in allowed:
        return guess
    # the columns the user named rule the guess out: the richest shape left whose columns are all there
    for shape in sorted(allowed, key=lambda one: -len(COLUMNS[one])):
        if all(roles[_ROLES[name]] for name in COLUMNS[shape]):
            return shape
    return min(allowed, key=lambda one: len(COLUMNS[one]))


def recognize(rows: Rows, shape: Shape | None = None, columns: Mapping[str, str] | None = None) -> RecognizedColumns:
    """The shape of a file's rows and the column behind each canonical name.
    `columns` (canonical -> the file's) is obeyed; what it leaves open is recognised by name. Raises DataError
    where a needed column is missing, its subclass AmbiguousColumns where several readings fit, UsageError for
    names that are no columns of Scions.
    """
    mapping = dict(columns or {})
    if shape is Shape.RETRIEVAL:
        raise DataError(f"{rows.path}: shape retrieval is read from a BEIR folder, not from one file")
    allowed = _checked(rows, mapping, shape)
    finder = _Finder(rows, mapping)
    single = {Shape.TEXTS, Shape.LABELLED}
    if set(allowed) - single:
        finder.settle_pair()
    paired = bool(finder.roles["first"] and finder.roles["second"])
    if set(allowed) <= single or (set(allowed) & single and not paired):
        finder.settle_text(told=shape is not None)
    chosen = _choose(finder, allowed)
    optional = {"negative"} if chosen is Shape.CANDIDATES else set()
    lacking = [n for n in COLUMNS[chosen] if not finder.roles[_ROLES[n]] and n not in optional]
    if lacking:
        ambiguous(
            rows,
            f"shape {chosen.value} needs {' and '.join(map(repr, lacking))}, and no column has a known name",
        )
    names = [name for name in COLUMNS[chosen] if finder.roles[_ROLES[name]]]
    result = {name: finder.one(_ROLES[name]) for name in names}
    if finder.roles["group"]:
        result["group"] = finder.one("group")
    ignored = [name for name in rows.columns if name not in result.values()]
    notes = finder.notes + ([f"ignored columns: {', '.join(ignored)}"] if ignored else [])
    return RecognizedColumns(chosen, result, notes)
