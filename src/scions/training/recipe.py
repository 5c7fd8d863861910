"""Choose the settings of a training from the shape and size of the data, each with its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from scions.data import Shape
from scions.errors import UsageError
from scions.store.manifest import METHODS
from scions.training.examples import OF_TEXTS

# Of the rates tried on every domain, the one that lost least to each domain's own best on dev, in the mean over
# patents, stackoverflow, banking77 and medquad (benchmarks/domain_adaptation.py, stage grid). The best differ much:
# Houlsby's from 3e-4 (stackoverflow) to 4.8e-3 (banking77). Medical is left out: every rate there loses to the base, so
# it would only favor training less. Parallel was not measured and uses Houlsby's rate.
LEARNING_RATES = {"houlsby": 1.2e-3, "pfeiffer": 2.4e-3, "parallel": 1.2e-3, "lora": 6e-4, "full": 1e-4}

_OBJECTIVES = {
    Shape.PAIRS: ("contrastive", "pairs: the other positives of the batch are the negatives"),
    Shape.TRIPLETS: ("contrastive", "triplets: the given negatives and the other positives of the batch"),
    Shape.CANDIDATES: ("contrastive", "candidates: a given negative per query and the other positives of the batch"),
    Shape.RETRIEVAL: ("contrastive", "queries with relevant documents: negatives from the batch and mined"),
    Shape.LABELLED: ("contrastive", "labels: class-balanced batches, texts of one class attract each other"),
    Shape.SCORED: ("cosent", "scores: only their order counts, so their scale does not matter"),
    Shape.BINARY: ("cosent", "0/1 pairs: every 1 should be closer than every 0"),
    Shape.TEXTS: ("deletion", "plain text: two copies of a text, half their tokens gone, are each other's positive"),
}
OBJECTIVES = ("contrastive", "cosent", *OF_TEXTS)
# Factor on a method's rate for plain texts. At the whole rate short texts lose their meaning (titles of stackoverflow:
# same-label precision 72 -> 52 with simcse); at this rate long texts gain and short ones hardly lose (figures in
# docs/training.md).
PLAIN_RATE = 1 / 12
PRESERVING = ("distillation", "mask", "contrast")


@dataclass
class Recipe:
    """The settings of one training, each with its reason in ``reasons``.

    ``max_length`` is in tokens, ``batch_size`` in rows; ``scale`` is the inverse temperature of the objective.
    ``preserve`` names parts of `scions.training.preservation`; ``preserve_weight`` is the weight of distillation and
    ``general_texts`` the source of its texts.
    """

    objective: str
    batch_size: int
    learning_rate: float
    epochs: float
    max_length: int
    warmup: float = 0.1
    weight_decay: float = 0.01
    scale: float = 20.0
    hard_negatives: int = 0
    dropout: bool = False
    preserve: str = "none"
    preserve_weight: float = 1.0
    general_texts: str = "docstrings"
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def preserved(self) -> tuple[str, ...]:
        """Return the parts of ``preserve`` in the order of `PRESERVING`. Raises UsageError for an unknown one."""
        if self.preserve.strip() == "none":
            return ()
        parts = PRESERVING if self.preserve.strip() == "all" else [part.strip() for part in self.preserve.split(",")]
        unknown = [part for part in parts if part not in PRESERVING]
        if unknown:
            raise UsageError(
                f"preserve {self.preserve!r}: {unknown[0]!r} is unknown; none, all, or some of {', '.join(PRESERVING)}"
            )
        return tuple(part for part in PRESERVING if part in parts)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def default_rate(method: str, objective: str) -> float:
    """Return the default learning rate of a method."""
    rate = LEARNING_RATES[method]
    return float(f"{rate * PLAIN_RATE:.2g}") if objective in OF_TEXTS else rate


def choose_recipe(
    shape: Shape,
    rows: int,
    token_lengths: list[int],
    model_max_length: int,
    method: str,
    **overrides: Any,
) -> Recipe:
    """Choose the recipe for a table of training rows.

    Args:
        shape: shape of the rows.
        rows: number of rows.
        token_lengths: tokens of the texts, or of a sample.
        model_max_length: tokens that the base reads.
        method: one of `METHODS`.
        overrides: settings that replace the chosen ones.

    Raises:
        UsageError: an override that is not a setting, an objective that does not fit the shape, or general texts
            although ``preserve`` leaves distillation out.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r} is unknown; choose from {', '.join(METHODS)}")
    objective, why = _OBJECTIVES[shape]
    batch_size = 32 if rows < 10_000 else 64
    epochs, why_epochs = _epochs(rows)
    longest = sorted(token_lengths)[int(0.95 * (len(token_lengths) - 1))] if token_lengths else model_max_length
    max_length = max(16, min(128, longest, model_max_length))
    recipe = Recipe(
        objective=objective,
        batch_size=batch_size,
        learning_rate=LEARNING_RATES[method],
        epochs=epochs,
        max_length=max_length,
        hard_negatives=1 if shape in (Shape.RETRIEVAL, Shape.CANDIDATES) else 0,
        reasons={
            "objective": why,
            "batch_size": "under 10,000 rows more steps help more than larger batches"
            if batch_size == 32
            else "many rows: more negatives per step",
            "learning_rate": f"best of {method} in the mean over domains; some need a quarter or four times that",
            "epochs": why_epochs,
            "preserve": "no general texts are named (`general_texts=...`)",
            "max_length": f"95 % of the texts have at most {longest} tokens; longer ones train slowly",
        },
    )
    names = {f.name for f in fields(Recipe)} - {"reasons"}
    for name, value in overrides.items():
        if name not in names:
            raise UsageError(f"{name!r} is not a setting of a recipe; known are {', '.join(sorted(names))}")
        if value is not None:
            setattr(recipe, name, value)
            recipe.reasons[name] = "given"
    recipe.dropout = recipe.objective == "simcse"
    if recipe.objective in OF_TEXTS and overrides.get("learning_rate") is None:
        recipe.learning_rate = default_rate(method, recipe.objective)
        recipe.reasons["learning_rate"] = "a twelfth of the rate with labels: more damages the base's knowledge"
    if overrides.get("general_texts") is not None and overrides.get("preserve") is None:
        recipe.preserve = "distillation"
        recipe.reasons["preserve"] = "general texts were named: they keep the base's vectors"
    _check(recipe, shape, model_max_length)
    if overrides.get("general_texts") is not None and "distillation" not in recipe.preserved:
        raise UsageError(
            f"`general_texts={recipe.general_texts!r}`: these are for distillation, and preserve is {recipe.preserve!r}"
            "; leave `preserve=...` out or add distillation to it, or give `general=...` to measure what general text "
            "loses"
        )
    return recipe


def _epochs(rows: int) -> tuple[float, str]:
    if rows >= 50_000:
        return 1.0, "enough rows to see each once"
    if rows >= 1_000:
        return 3.0, "a few thousand rows: each seen three times; the best epoch on held-out rows is kept"
    return 10.0, "few rows: each seen ten times; the best epoch on held-out rows is kept"


def _check(recipe: Recipe, shape: Shape, model_max_length: int) -> None:
    if recipe.objective not in OBJECTIVES:
        raise UsageError(f"objective {recipe.objective!r} is unknown; choose from {', '.join(OBJECTIVES)}")
    _ = recipe.preserved  # raises for unknown parts
    fitting = _OBJECTIVES[shape][0]
    able = list(dict.fromkeys([fitting, *OF_TEXTS]))
    if recipe.objective not in able:
        either = ", ".join(map(repr, able[:-1])) + f" or {able[-1]!r}"
        raise UsageError(f"{shape.value} data cannot train with {recipe.objective!r}; use {either}")
    if recipe.batch_size < 2:
        raise UsageError(f"batch size must be at least 2, got {recipe.batch_size}")
    if not 0 < recipe.learning_rate < 1:
        raise UsageError(f"learning rate must lie between 0 and 1, got {recipe.learning_rate}")
    if not 0 < recipe.epochs <= 1000:
        raise UsageError(f"epochs must be above 0 and at most 1000, got {recipe.epochs}")
    if not 8 <= recipe.max_length <= model_max_length:
        raise UsageError(f"max length must be 8 to {model_max_length} tokens (the base's), got {recipe.max_length}")
