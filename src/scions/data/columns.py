"""Recognize the shape of a file's rows by the names of its columns; ask where several readings are possible."""

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
# The names of each role in tiers: a name of an earlier tier wins over one of a later tier ("context" beside
# "sentence2" is an extra column), two names of one tier are ambiguous.
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "text": (("text", "sentence", "content", "document", "body", "utterance", "doc"),),
    "first": ((*_FIRST, *_FIRST_NUMBERED), ("question", "prompt"), ("title",)),
    "second": ((*_SECOND, *_SECOND_NUMBERED), ("answer", "passage", "response"), ("context",)),
    "third": (("negative", "neg", "negatives", "hard_negative", "hard_negatives"), ("negative_1",)),
    "score": (("score", "similarity", "sim", "rating", "similarity_score"),),
    "label": (("label", "is_duplicate"), ("intent", "category", "class", "topic")),
    "group": (("group",),),
}
_WEAK = {"title", "context"}  # stand beside texts of many kinds, so they never outvote a column named text
_TOPICS = {"intent", "category", "topic"}  # beside a pair they say what it is about, not how it is judged
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


def recognize(rows: Rows, shape: Shape | None = None, columns: Mapping[str, str] | None = None) -> RecognizedColumns:
    """Return the shape of a file's rows and the column of each canonical name.

    Args:
        rows: the file.
        shape: the shape, None to recognize it.
        columns: canonical name -> the file's; the rest is recognized by name.

    Raises:
        DataError: a needed column is missing.
        AmbiguousColumns: several readings fit, or none.
        UsageError: a name that is no column of Scions.
    """
    mapping = dict(columns or {})
    if shape is Shape.RETRIEVAL:
        raise DataError(f"{rows.path}: shape retrieval is read from a BEIR folder, not from one file")
    allowed = _allowed_shapes(rows, mapping, shape)
    roles = _Roles(rows, mapping)
    single = {Shape.TEXTS, Shape.LABELLED}
    if set(allowed) - single:
        roles.settle_pair()
    paired = bool(roles.columns["first"] and roles.columns["second"])
    if set(allowed) <= single or (set(allowed) & single and not paired):
        roles.settle_text(shape_given=shape is not None)
    chosen = _choose_shape(roles, allowed)
    optional = {"negative"} if chosen is Shape.CANDIDATES else set()
    missing = [name for name in COLUMNS[chosen] if not roles.columns[_ROLES[name]] and name not in optional]
    if missing:
        raise_ambiguous(
            rows, f"shape {chosen.value} needs {' and '.join(map(repr, missing))}, and no column has a known name"
        )
    names = [name for name in (*COLUMNS[chosen], "group") if roles.columns[_ROLES[name]]]
    chosen_columns = {name: roles.column(_ROLES[name]) for name in names}
    ignored = [name for name in rows.columns if name not in chosen_columns.values()]
    notes = roles.notes + ([f"ignored columns: {', '.join(ignored)}"] if ignored else [])
    return RecognizedColumns(chosen, chosen_columns, notes)


def normalize_name(name: str) -> str:
    """Return a column name as the table of usual names writes it."""
    return name.strip().casefold().replace("-", "_").replace(" ", "_")


def parse_number(value: object) -> float | None:
    """Return a number, or a string that writes one, as a float; None for anything else, booleans included."""
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def raise_ambiguous(rows: Rows, why: str) -> NoReturn:
    """Raise AmbiguousColumns with the columns, the first row, and the parameters that settle it."""
    sample = ", ".join(f"{name}={excerpt(rows.rows[0].get(name), 40)}" for name in rows.columns)
    raise AmbiguousColumns(
        f"{rows.path}: {why}. Columns found: {', '.join(rows.columns) or 'none'}. First row: {sample}. "
        "Settle it with `columns={'anchor': 'COL', 'positive': 'COL'}` (or text, label, sentence1, sentence2, score, "
        f"query, negative, group) and/or `shape=...` ({', '.join(shape.value for shape in _FILE_SHAPES)})"
    )


def _allowed_shapes(rows: Rows, mapping: Mapping[str, str], shape: Shape | None) -> list[Shape]:
    for canonical, column in mapping.items():
        if canonical not in _ROLES:
            raise UsageError(f"columns: {canonical!r} is no column of Scions; they are: {', '.join(_ROLES)}")
        if column not in rows.columns:
            near = difflib.get_close_matches(column, rows.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{rows.path}: no column {column!r}{hint}. Columns found: {', '.join(rows.columns)}")
    names = set(mapping) - {"group"}
    shapes = [shape] if shape else list(_FILE_SHAPES)
    allowed = [candidate for candidate in shapes if names <= set(COLUMNS[candidate])]
    if not allowed:
        known = "; ".join(f"{candidate.value}: {', '.join(COLUMNS[candidate])}" for candidate in shapes)
        raise UsageError(f"columns {', '.join(sorted(names))} do not belong to one shape ({known})")
    return allowed


class _Roles:
    """The columns that may play each role; ambiguity is an error only when the role is needed."""

    def __init__(self, rows: Rows, mapping: Mapping[str, str]) -> None:
        self.rows = rows
        self.mapped = set(mapping.values())
        self.notes: list[str] = []
        self.columns: dict[str, list[str]] = {role: self._named(role) for role in _NAMES}
        for canonical, column in mapping.items():
            self.columns[_ROLES[canonical]] = [column]

    def _named(self, role: str) -> list[str]:
        for tier in _NAMES[role]:
            hits = [name for name in self.rows.columns if normalize_name(name) in tier and name not in self.mapped]
            if hits:
                return hits
        return []

    def weak(self, role: str) -> bool:
        columns = self.columns[role]
        return all(normalize_name(name) in _WEAK and name not in self.mapped for name in columns)

    def values(self, role: str) -> list[Any]:
        column = self.column(role)
        return [row.get(column) for row in self.rows.rows if row.get(column) not in (None, "")]

    def column(self, role: str) -> str:
        columns = self.columns[role]
        if len(columns) > 1:
            raise_ambiguous(self.rows, f"columns {' and '.join(map(repr, columns))} could both be meant")
        return columns[0]

    def unknown_texts(self) -> list[str]:
        """Return the columns of no role whose first value is text and no number."""
        texts = []
        for name in self._unknown():
            value = next((row[name] for row in self.rows.rows if row.get(name) not in (None, "")), None)
            if isinstance(value, (str, list)) and parse_number(value) is None:
                texts.append(name)
        return texts

    def unknown_judgement(self) -> str | None:
        """Return a column of no role that holds only 0 and 1: trained as pairs, the 0s would be positives."""
        for name in self._unknown():
            labels = set()
            for row in self.rows.rows:
                labels.add(BINARY_LABELS.get(str(row.get(name)).strip().casefold()))
                if None in labels:
                    break
            if labels == {0, 1}:
                return name
        return None

    def _unknown(self) -> list[str]:
        known = {name for columns in self.columns.values() for name in columns}
        return [
            name
            for name in self.rows.columns
            if name not in known and normalize_name(name) not in _NOT_TEXT and not normalize_name(name).endswith("_id")
        ]

    def settle_pair(self) -> None:
        """Use a column named text for the missing side of a pair."""
        first, second, text = (self.columns[role] for role in ("first", "second", "text"))
        if not text or bool(first) == bool(second):
            return
        if first:
            if self.weak("first") and self.columns["label"]:
                raise_ambiguous(self.rows, f"{first[0]!r} and {text[0]!r} may be a pair, or one text with a label")
            self.columns["second"] = text
        elif not self.weak("second"):
            self.columns["first"] = text

    def settle_text(self, shape_given: bool) -> None:
        """Find the one text column where no column is named text."""
        sides = [*self.columns["first"], *self.columns["second"]]
        if self.columns["text"]:
            return
        unknown = self.unknown_texts()
        if len(sides) == 1:
            if unknown and not self.columns["label"] and not shape_given:
                raise_ambiguous(self.rows, f"{sides[0]!r} is one side of a pair, and no other column has a known name")
            self.columns["text"] = sides
        elif not sides and len(unknown) == 1:
            self.columns["text"] = unknown
            self.notes.append(f"column {unknown[0]!r} taken as the text")
        else:
            hint = "" if sides else "; where the file has no header line, add one"
            raise_ambiguous(self.rows, f"cannot tell which column is the text{hint}")


def _judged_pair_shape(roles: _Roles) -> Shape:
    """Return the shape of a pair with a label: BINARY, SCORED where it is a score, PAIRS where it is a topic."""
    column = roles.column("label")
    values = roles.values("label")
    if all(str(value).strip().casefold() in BINARY_LABELS for value in values):
        return Shape.BINARY
    if normalize_name(column) in _TOPICS and column not in roles.mapped:
        return Shape.PAIRS
    numbers = [parse_number(value) for value in values]
    if all(value is not None for value in numbers):
        if any(value is not None and math.isfinite(value) and value != int(value) for value in numbers):
            roles.columns["score"] = [column]
            roles.notes.append(f"column {column!r} holds fractions: read as the score")
            return Shape.SCORED
        raise_ambiguous(
            roles.rows,
            f"column {column!r} holds whole numbers other than 0 and 1: if they are grades of similarity say "
            f"`columns={ {'score': column} }`; if they are classes, keep the rows that match as positive pairs",
        )
    raise not_binary_error(roles.rows.path, column, values)


def not_binary_error(path: str, column: str, values: list[Any]) -> DataError:
    """Return the error for a pair whose label is neither 0/1 nor a score."""
    some = ", ".join(excerpt(value, 20) for value in list(dict.fromkeys(map(str, values)))[:5])
    return DataError(
        f"{path}: column {column!r} labels pairs with {some}; Scions trains on scored pairs (a number), "
        "on 0/1 pairs, or on positive pairs. Convert it: write 1 for the label that means 'match' and 0 for "
        "the rest, or keep only the rows with that label and leave the column out"
    )


def _choose_shape(roles: _Roles, allowed: list[Shape]) -> Shape:
    if len(allowed) == 1:
        return allowed[0]
    columns = roles.columns
    if not (columns["first"] and columns["second"]):
        guess = Shape.LABELLED if columns["label"] else Shape.TEXTS
    elif any(isinstance(value, list) for role in ("second", "third") if columns[role] for value in roles.values(role)):
        guess = Shape.CANDIDATES
    elif columns["third"]:
        guess = Shape.TRIPLETS
    elif columns["score"] and columns["label"] and {Shape.SCORED, Shape.BINARY} <= set(allowed):
        if normalize_name(roles.column("label")) not in _TOPICS:
            raise_ambiguous(roles.rows, f"a pair has both {roles.column('score')!r} and {roles.column('label')!r}")
        guess = Shape.SCORED
    elif columns["score"] and Shape.SCORED in allowed:
        guess = Shape.SCORED
    elif columns["label"] and {Shape.SCORED, Shape.BINARY} & set(allowed):
        guess = _judged_pair_shape(roles)
    else:
        guess = Shape.PAIRS
        judges = roles.unknown_judgement() if Shape.BINARY in allowed and Shape.PAIRS in allowed else None
        if judges is not None:
            raise_ambiguous(
                roles.rows,
                f"column {judges!r} beside a pair holds 0 and 1: if it judges the pair say "
                f"`columns={ {'label': judges} }`, if it does not, `shape='pairs'`",
            )
    if guess in allowed:
        return guess
    # the columns the user named rule the guess out: take the richest shape left whose columns are all there
    for shape in sorted(allowed, key=lambda shape: -len(COLUMNS[shape])):
        if all(columns[_ROLES[name]] for name in COLUMNS[shape]):
            return shape
    return min(allowed, key=lambda shape: len(COLUMNS[shape]))
