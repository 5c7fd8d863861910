"""Set up a training: read and check the data, load the base, choose the recipe, add the adapter."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.data import Shape, Splits, Table, check_scorable, check_trainable, drift_pairs, read, read_splits
from scions.data.splits import FEWEST_PLAIN_ROWS
from scions.deprecation import warn
from scions.encoder.base_info import max_length_of
from scions.errors import DataError, UsageError
from scions.evaluation.split_halves import halves
from scions.store import base_id, load_base, resolve_base
from scions.training.batches import plan_batches
from scions.training.examples import OF_TEXTS, Examples, to_examples
from scions.training.options import TrainOptions
from scions.training.preservation.texts import general_texts
from scions.training.query_side import DocumentVectors, check_query_side, open_documents, query_side_recipe
from scions.training.recipe import Recipe, choose_recipe
from scions.training.trainable import TrainableParameters, make_trainable


@dataclass
class Plan:
    """The settings of a training and, from a dry run, what it would take.

    Attributes:
        shape: shape of the training rows.
        rows: number of rows in train, dev and test.
        notes: what reading and splitting dropped, repaired or noticed.
        recipe: the settings and their reasons.
        steps: training steps.
        truncated: training texts longer than ``recipe.max_length`` tokens.
        seconds: estimated time of the training steps and of what comes before the first; None, as the estimates below,
            where nothing was measured.
        scoring_seconds: estimated time of scoring: dev after every epoch, base and adapter on test, the linear map.
        baseline_seconds: estimated time of the baselines that are trained (full fine-tuning, two-sided).
        memory_bytes: least memory that the whole process needs.
        query_side: whether only queries are trained.
        documents: number of documents that keep the base's vectors in a query-side training.
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

    @property
    def rival_seconds(self) -> float | None:
        """The old name of ``baseline_seconds``."""
        warn("Plan.rival_seconds is deprecated; use Plan.baseline_seconds")
        return self.baseline_seconds


@dataclass
class TrainSetup:
    """A training that is ready to start.

    Attributes:
        model: the base with the adapter in it.
        examples: the training rows, without prompts.
        lengths: tokens of a sample of the texts that are trained on.
        index: the documents' vectors in a query-side training.
        distilled: general texts for distillation.
        general: the user's rows of general text.
        drift_pairs: built-in pairs of general texts, where there are no such rows.
    """

    options: TrainOptions
    plan: Plan
    base_path: str
    model: SentenceTransformer
    trained: TrainableParameters
    splits: Splits
    examples: Examples
    lengths: list[int]
    index: DocumentVectors | None
    distilled: list[str] | None
    general: Table | None
    drift_pairs: list[tuple[str, str]]


def prepare(options: TrainOptions) -> TrainSetup:
    """Set up a training.

    Raises:
        ScionsError: whatever is wrong with data, base or options, before anything is trained.
    """
    general = None if options.general is None else read(options.general)
    limited = options.max_general_loss is not None and general is None
    pairs = _drift_pairs() if limited else []
    if limited and not pairs:
        raise UsageError(
            f"`max_general_loss={options.max_general_loss:g}`: there is nothing to measure it on, since the built-in "
            "pairs (docstrings of Python's own library) were not found; give `general=...`"
        )
    splits = read_splits(
        options.data,
        dev=options.dev,
        test=options.test,
        shape=options.shape,
        columns=options.columns,
        seed=options.seed,
        limit=options.limit,
    )
    check_trainable(splits.train)
    shape = splits.train.shape
    objective = options.objective or ("deletion" if shape is Shape.TEXTS else "contrastive")
    if options.query_side:
        check_query_side(shape, objective)
    _check_held_out(splits)
    notes = [*splits.notes, *_lonely_labels(splits.train, objective)]
    base_path = resolve_base(options.base)
    model = load_base(base_path)
    examples = to_examples(splits.train, objective)
    if len(examples) < 2:
        raise DataError(f"{splits.train.source}: {len(examples)} training row; at least 2 are needed, 50 to be of use")
    texts = examples.texts
    if options.query_side:  # documents are not read by what is trained
        texts = [texts[place] for place in np.unique(examples.columns[:, 0])]
    lengths = token_lengths(model, texts)
    choose = query_side_recipe if options.query_side else choose_recipe
    recipe = choose(shape, len(examples), lengths, max_length_of(model), options.method, **options.recipe)
    distilled = None
    if "distillation" in recipe.preserved:
        distilled = general_texts(recipe.general_texts, model, splits.train, options.seed)
    index = None
    if options.query_side:
        name = base_id(options.base)
        index = open_documents(load_base(base_path), splits, options.documents, options.document_texts, name)
    trained = make_trainable(model, options.method, options.trainable_share, options.rank, options.layers)
    cut = sum(length > recipe.max_length for length in lengths)
    plan = Plan(
        base=base_id(options.base),
        method=options.method,
        shape=shape.value,
        rows={"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
        notes=list(dict.fromkeys(notes)) + [f"general: {note}" for note in (general.notes if general else ())],
        recipe=recipe,
        rank=trained.rank,
        trainable_parameters=trained.count,
        trainable_share=trained.share,
        steps=len(plan_batches(examples, recipe.batch_size, recipe.epochs, options.seed)),
        truncated=round(cut / len(lengths) * len(texts)) if lengths else 0,
        query_side=options.query_side,
        documents=None if index is None else index.documents,
    )
    if general is None and not limited:  # takes a second or two, so only once nothing else can be wrong
        pairs = _drift_pairs()
    return TrainSetup(
        options, plan, base_path, model, trained, splits, examples, lengths, index, distilled, general, pairs
    )


def token_lengths(model: SentenceTransformer, texts: list[str], limit: int = 4000) -> list[int]:
    """Return the number of tokens of ``texts``, or of ``limit`` of them drawn evenly."""
    chosen = np.random.default_rng(0).choice(len(texts), min(limit, len(texts)), replace=False)
    sample = [texts[i] for i in chosen]
    encoded = model.tokenizer(sample, truncation=False, return_attention_mask=False, verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def _drift_pairs() -> list[tuple[str, str]]:
    with suppress(OSError, DataError):
        return drift_pairs()
    return []


def _check_held_out(splits: Splits) -> None:
    """Raise DataError where dev or test rows cannot be scored."""
    for part, table in (("dev", splits.dev), ("test", splits.test)):
        check_scorable(table, part)
        if table.shape is not Shape.TEXTS:
            continue
        try:
            halves(table.columns["text"], f"{table.source}, {part} rows")
        except DataError as error:
            raise DataError(
                f"{error} Where the parts are split off the training rows, {FEWEST_PLAIN_ROWS} such texts will do"
            ) from error


def _lonely_labels(train: Table, objective: str) -> list[str]:
    """Return a note on labels with a single row, which train nothing. Raises DataError where all labels are such."""
    if train.shape is not Shape.LABELLED or objective in OF_TEXTS:
        return []
    counts = Counter(train.columns["label"])
    lonely = [label for label, count in counts.items() if count < 2]
    if len(lonely) == len(counts):
        raise DataError(
            f"{train.source}: no label has two training rows ({len(train)} rows of {len(counts)} labels), and texts of "
            "one label are what attracts each other. A label needs 2 rows to train and 4 to stand in dev or test as "
            "well; or train on the texts alone with `objective='deletion'`"
        )
    some = ", ".join(repr(label) for label in lonely[:5]) + (", …" if len(lonely) > 5 else "")
    return [f"{len(lonely)} labels have a single training row and train nothing: {some}"] if lonely else []
