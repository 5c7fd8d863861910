"""The options of a training, the same from the command line and from Python."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

from scions.errors import UsageError
from scions.store import check_name, default_root

# Options that override the recipe's own choice.
RECIPE_OPTIONS = ("objective", "batch_size", "learning_rate", "epochs", "max_length", "preserve", "general_texts")


class TrainKeywords(TypedDict, total=False):
    """The keyword arguments of `train` and `plan`; `TrainOptions` holds their defaults, `train` explains them."""

    base: str | None
    method: str
    trainable_share: float | None
    rank: int | None
    layers: int | None
    objective: str | None
    batch_size: int | None
    learning_rate: float | None
    epochs: float | None
    max_length: int | None
    seed: int
    general: str | Path | None
    dev: str | Path | None
    test: str | Path | None
    shape: str | None
    columns: dict[str, str] | None
    limit: int | None
    adapters: str | Path | None
    resume: bool
    force: bool
    compare_full: bool
    query_side: bool
    documents: str | Path | None
    document_texts: str | Path | None
    compare_two_sided: bool
    preserve: str | None
    general_texts: str | Path | None
    max_general_loss: float | None


@dataclass(frozen=True)
class TrainOptions:
    """All options of one training, checked against each other. `train` explains them.

    Raises:
        UsageError: options that do not go together, or a number out of range.
        NameRefused: a name that no adapter may have.
    """

    data: str
    name: str | None = None
    base: str | None = None
    method: str = "houlsby"
    trainable_share: float | None = None
    rank: int | None = None
    layers: int | None = None
    objective: str | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    epochs: float | None = None
    max_length: int | None = None
    seed: int = 0
    general: str | None = None
    dev: str | None = None
    test: str | None = None
    shape: str | None = None
    columns: dict[str, str] | None = None
    limit: int | None = None
    adapters: str | None = None
    resume: bool = False
    force: bool = False
    compare_full: bool = False
    query_side: bool = False
    documents: str | None = None
    document_texts: str | None = None
    compare_two_sided: bool = False
    preserve: str | None = None
    general_texts: str | None = None
    max_general_loss: float | None = None

    @classmethod
    def of(cls, data: str | Path, name: str | None, options: TrainKeywords) -> TrainOptions:
        """Build the options from keyword arguments; paths may be strings or ``Path`` objects.

        Raises:
            UsageError: an unknown name, with the nearest known one; or as the class.
        """
        known = [field.name for field in fields(cls)]
        for given in options:
            if given not in known:
                nearest = difflib.get_close_matches(given, known, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known[2:])}"
                raise UsageError(f"unknown option {given!r} of a training; {hint}")
        values: dict[str, Any] = {"data": data, "name": name, **options}
        values = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
        return cls(**values)

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be a whole number from 0 to {2**32 - 1}, got {self.seed}")
        if self.max_general_loss is not None and not 0 <= self.max_general_loss <= 100:
            raise UsageError(f"`max_general_loss={self.max_general_loss:g}`: give points from 0 to 100")
        if self.compare_two_sided and not self.query_side:
            raise UsageError(
                "`compare_two_sided=True` is a baseline for `query_side=True`: give that too (without it both sides "
                "are trained anyway)"
            )
        if not self.query_side and (self.documents is not None or self.document_texts is not None):
            raise UsageError(
                "`documents=...` holds vectors that stay as they are, which is for `query_side=True` only: give both"
            )
        if self.document_texts is not None and self.documents is None:
            raise UsageError("`document_texts=...` are the texts of `documents=...`: give that file of vectors too")

    @property
    def recipe(self) -> dict[str, Any]:
        """The options among `RECIPE_OPTIONS` that were given."""
        return {key: value for key in RECIPE_OPTIONS if (value := getattr(self, key)) is not None}

    @property
    def root(self) -> Path:
        """The folder of adapters."""
        return default_root() if self.adapters is None else Path(self.adapters)

    @property
    def folder(self) -> Path:
        """Where the adapter will be published."""
        return self.root / str(self.name)

    @property
    def run_folder(self) -> Path:
        """Where checkpoints are kept while the training runs."""
        return self.root / f".training-{self.name}"

    @property
    def trains_full_baseline(self) -> bool:
        """Whether full fine-tuning runs as a baseline; it is no baseline of itself."""
        return self.compare_full and self.method != "full"
