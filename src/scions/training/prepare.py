"""What a training would do, before it does it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.data import Shape, Splits, Table, check_scorable, check_trainable, read_splits
from scions.data.splits import FEWEST_PLAIN_ROWS
from scions.encoder.base_info import max_length_of
from scions.errors import DataError, UsageError
from scions.evaluation.split_halves import halves
from scions.store import base_id, load_base, resolve_base
from scions.training.batches import plan_batches
from scions.training.examples import OF_TEXTS, to_examples
from scions.training.preservation.texts import general_texts
from scions.training.query_side import DocumentVectors, check_query_side, open_documents, query_side_recipe
from scions.training.recipe import Recipe, choose_recipe
from scions.training.trainable import TrainableParameters, make_trainable

OPTIONS = ("objective", "batch_size", "learning_rate", "epochs", "max_length", "preserve", "general_texts")


@dataclass
class Plan:
    """One training, laid out.

    Attributes:
        shape: of the training rows.
        rows: by part: train, dev, test.
        notes: what reading and splitting dropped, repaired or noticed.
        recipe: the settings and their reasons.
        steps: training steps.
        truncated: training texts longer than ``recipe.max_length`` tokens.
        seconds: estimated time of the training steps and of what they need before the first, or None where nothing was
            measured, as in what follows.
        scoring_seconds: estimated time of scoring: dev after every epoch, base and adapter on test, the linear map.
        rival_seconds: estimated time of full fine-tuning beside it, where that was asked for.
        memory_bytes: memory of the whole process that the training needs at least.
        query_side: only queries are trained; ``documents``: how many documents stay as the base has them.
    """

    base: str
    method: str
    shape: str
    rows: dict[str, int]
    notes: list[str]
    recipe: Recipe
    rank: int
    trainable_parameters: int
    trainable_share: float
    steps: int
    truncated: int
    seconds: float | None = None
    scoring_seconds: float | None = None
    baseline_seconds: float | None = None
    memory_bytes: int | None = None
    query_side: bool = False
    documents: int | None = None


@dataclass
class TrainSetup:
    """What a training starts from: data read, base loaded, adapter grafted.

    ``index`` where queries alone train; ``general`` texts where distillation holds on to some.
    """

    base_path: str
    model: SentenceTransformer
    splits: Splits
    trained: TrainableParameters
    plan: Plan
    lengths: list[int] = field(default_factory=list)
    index: DocumentVectors | None = None
    general: list[str] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


def prepare(
    data: str,
    *,
    base: str | None,
    method: str,
    trainable_share: float | None,
    rank: int | None,
    layers: int | None,
    seed: int,
    dev: str | None,
    test: str | None,
    shape: str | None,
    columns: dict[str, str] | None,
    limit: int | None,
    overrides: dict[str, Any],
    query_side: bool = False,
    documents: str | None = None,
    document_texts: str | None = None,
) -> TrainSetup:
    """Read, check and split the data; load the base; choose the recipe; graft the adapter.

    Raises:
        ScionsError: whatever is wrong with data, base or options, before anything is trained.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be a whole number from 0 to {2**32 - 1}, got {seed}")
    splits = read_splits(data, dev=dev, test=test, shape=shape, columns=columns, seed=seed, limit=limit)
    check_trainable(splits.train)
    if query_side:
        check_query_side(splits.train.shape, _objective(splits, overrides))
    elif documents is not None or document_texts is not None:
        raise UsageError("--documents holds vectors that stay as they are, which is for --query-side only: give both")
    for part, table in (("dev", splits.dev), ("test", splits.test)):
        check_scorable(table, part)
    _check_plain_texts(splits)
    notes = [*splits.notes, *_lonely_labels(splits.train, _objective(splits, overrides))]
    base_path = resolve_base(base)
    model = load_base(base_path)
    longest = max_length_of(model)
    probe = to_examples(splits.train, _objective(splits, overrides))
    if len(probe) < 2:
        raise DataError(f"{splits.train.source}: {len(probe)} training row; at least 2 are needed, 50 to be of use")
    # With --query-side the queries alone are read by what is trained.
    read = np.unique(probe.columns[:, 0]) if query_side else np.arange(len(probe.texts))
    lengths = _token_lengths(model, [probe.texts[i] for i in read])
    choose = query_side_recipe if query_side else choose_recipe
    recipe = choose(splits.train.shape, len(probe), lengths, longest, method, **overrides)
    general = None
    if "distillation" in recipe.preserved:
        general = general_texts(recipe.general_texts, model, splits.train, seed)
    index = None
    if query_side:
        index = open_documents(load_base(base_path), splits, documents, document_texts, base_id(base))
    trained = make_trainable(model, method, trainable_share, rank, layers)
    steps = len(plan_batches(probe, recipe.batch_size, recipe.epochs, seed))
    over = sum(length > recipe.max_length for length in lengths)
    plan = Plan(
        base=base_id(base),
        method=method,
        shape=splits.train.shape.value,
        rows={"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
        notes=list(dict.fromkeys(notes)),
        recipe=recipe,
        rank=trained.rank,
        trainable_parameters=trained.count,
        trainable_share=trained.share,
        steps=steps,
        truncated=round(over / len(lengths) * len(read)) if lengths else 0,
        query_side=query_side,
        documents=None if index is None else index.documents,
    )
    return TrainSetup(base_path, model, splits, trained, plan, lengths, index, general, overrides)


def two_sided_recipe(prepared: TrainSetup) -> Recipe:
    """The recipe that a query-side training's data would get with both sides trained, under the same options."""
    splits, overrides, model = prepared.splits, prepared.overrides, prepared.model
    probe = to_examples(splits.train, _objective(splits, overrides))
    lengths, longest = _token_lengths(model, probe.texts), max_length_of(model)
    return choose_recipe(splits.train.shape, len(probe), lengths, longest, prepared.plan.method, **overrides)


def _token_lengths(model: SentenceTransformer, texts: list[str], most: int = 4000) -> list[int]:
    """Tokens of ``texts``, or of as many of them drawn evenly."""
    chosen = np.random.default_rng(0).choice(len(texts), min(most, len(texts)), replace=False)
    sample = [texts[i] for i in chosen]
    encoded = model.tokenizer(sample, truncation=False, return_attention_mask=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def _check_plain_texts(splits: Splits) -> None:
    """Raise DataError where a held-out part of plain texts is too small for its proxy of a score."""
    for part, table in (("dev", splits.dev), ("test", splits.test)):
        if table.shape is not Shape.TEXTS:
            continue
        try:
            halves(table.columns["text"], f"{table.source}, {part} rows")
        except DataError as error:
            raise DataError(
                f"{error} Where the parts are split off the training rows, {FEWEST_PLAIN_ROWS} such texts will do"
            ) from error


def _lonely_labels(train: Table, objective: str) -> list[str]:
    """A note on the labels that cannot train. Raises DataError where no label can."""
    if train.shape is not Shape.LABELLED or objective in OF_TEXTS:
        return []
    counts = Counter(train.columns["label"])
    lonely = [label for label, count in counts.items() if count < 2]
    if len(lonely) == len(counts):
        raise DataError(
            f"{train.source}: no label has two training rows ({len(train)} rows of {len(counts)} labels), and texts of "
            "one label are what attracts each other. A label needs 2 rows to train and 4 to stand in dev or test as "
            "well; or train on the texts alone with the objective 'deletion'"
        )
    some = ", ".join(repr(label) for label in lonely[:5]) + (", …" if len(lonely) > 5 else "")
    return [f"{len(lonely)} labels have a single training row and train nothing: {some}"] if lonely else []


def _objective(splits: Splits, overrides: dict[str, Any]) -> str:
    given = overrides.get("objective")
    if given is not None:
        return str(given)
    return "deletion" if splits.train.shape is Shape.TEXTS else "contrastive"


def parse_overrides(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe's options among ``values`` that were given. Raises UsageError for one that is no option."""
    unknown = sorted(set(values) - set(OPTIONS))
    if unknown:
        raise UsageError(f"unknown: {', '.join(unknown)}; a recipe takes {', '.join(OPTIONS)}")
    given = {name: value for name, value in values.items() if value is not None}
    return {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
