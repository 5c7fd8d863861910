"""Compute cells of the query-side benchmark: the index of a domain, a trained setting on dev, a final score on test."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adaptation.cells import Limits, rate_name
from adaptation.domains import DOMAINS, Domain, Parts, load
from adaptation.records import PeakMemory, packed, summary
from scions.data import Splits, Table, read_splits
from scions.encoder import space_of
from scions.encoder.query_side import QuerySideEncoder
from scions.evaluation import CachedEncoder, evaluate
from scions.store import load_base
from scions.training.examples import to_examples
from scions.training.fit import fit
from scions.training.live_encoder import LiveEncoder
from scions.training.query_side import DocumentVectors, documents_of, query_side_recipe
from scions.training.recipe import Recipe, choose_recipe
from scions.training.trainable import make_trainable
from scions.training.trainer import TrainingDiverged
from scions.vectors import embed_file
from scions.vectors.reader import read_vectors

SCORING_LENGTH = 256
SCORED_WITH = "float32, texts cut at 256 tokens, the weights as trained in memory; documents of query-side: the index"
GRID_ROWS, ROWS = 600, 2000
SIDES = {
    "medquad": DOMAINS["medquad"],
    "cosqa": Domain("cosqa", *["cosqa"] * 3, seen=True),
    "docstrings": Domain("docstrings", *["docstrings"] * 3, seen=True),
}


@dataclass(frozen=True)
class Setting:
    """``side`` is base, query-side or two-sided; ``batch_size`` None is the recipe's."""

    stage: str
    domain: str
    side: str
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        parts = [self.stage, self.domain, self.side]
        if self.stage == "grid" and self.learning_rate is not None:
            parts.append(rate_name(self.learning_rate) + (f"-batch{self.batch_size}" if self.batch_size else ""))
        if self.stage == "final" and self.side != "base":
            parts.append(f"seed{self.seed}")
        return "-".join(parts)


def parts_of(domain: Domain, limits: Limits, rows: int) -> Parts:
    """At most ``rows`` training rows (drawn with a fixed seed), and dev and test."""
    rows = min(rows, limits.rows or rows)
    parts = _loaded(domain, limits, rows)
    if limits.test_rows:  # only to try the benchmark out: a corpus as small as the rest
        parts.train, parts.dev, parts.test = (_small(t, limits.test_rows) for t in (parts.train, parts.dev, parts.test))
        parts.whole_train = parts.train
    return parts


def _small(table: Table, rows: int) -> Table:
    few = table.take(range(min(len(table), 2 * rows)))
    corpus = table.corpus or {}
    kept = dict.fromkeys(name for judged in few.columns["relevant"] for name in judged)
    return replace(few, corpus={name: corpus[name] for name in kept})


def _loaded(domain: Domain, limits: Limits, rows: int) -> Parts:
    if domain.name != "docstrings":
        return load(domain, limits.data, rows, limits.test_rows)
    splits = read_splits("docstrings")
    chosen = np.random.default_rng(0).permutation(len(splits.train))[:rows].tolist()
    return Parts(splits.train.take(chosen), splits.train, splits.dev, splits.test, None, {})


def write_index(domain: Domain, limits: Limits, folder: Path) -> dict[str, Any]:
    """The base's vectors of all documents of a domain, as `scions embed` writes them: what a user has already."""
    parts = parts_of(domain, limits, ROWS)
    texts = documents_of(Splits(parts.whole_train, parts.dev, parts.test))
    folder.mkdir(parents=True, exist_ok=True)
    source, target = folder / f"{domain.name}.jsonl", folder / f"{domain.name}.npy"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    base = load_base()
    base.max_seq_length = SCORING_LENGTH
    report = embed_file(base, source, target, space=space_of(base), force=True, resume=True)
    return {
        "cell": f"index-{domain.name}",
        "stage": "index",
        "domain": domain.name,
        "documents": report.rows,
        "seconds": round(report.seconds, 1),
        "documents_per_second": round(report.rows_per_second, 2),
        "score": round(report.rows_per_second, 2),
    }


def index_of(domain: Domain, folder: Path | None) -> DocumentVectors:
    """The base with the vectors of ``folder``, or, where that is None, without."""
    base = load_base()
    base.max_seq_length = SCORING_LENGTH
    if folder is None:
        return DocumentVectors(base, 0)
    lines = (folder / f"{domain.name}.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    return DocumentVectors(base, len(texts), read_vectors(folder / f"{domain.name}.npy"), texts)


def recipe_of(model: Any, parts: Parts, side: str, **overrides: Any) -> Recipe:
    """What the package chooses for these rows on one side or both."""
    probe = to_examples(parts.train, "contrastive")
    places = np.unique(probe.columns[:, 0]) if side == "query-side" else np.arange(len(probe.texts))
    lengths = [len(ids) for ids in model.tokenizer([probe.texts[i] for i in places], verbose=False)["input_ids"]]
    choose = query_side_recipe if side == "query-side" else choose_recipe
    return choose(parts.train.shape, len(probe), lengths, SCORING_LENGTH, "houlsby", **overrides)


def run(setting: Setting, limits: Limits, index_folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The cell's record and its per-unit arrays."""
    import torch

    start = time.perf_counter()
    domain = SIDES[setting.domain]
    parts = parts_of(domain, limits, GRID_ROWS if setting.stage == "grid" else ROWS)
    index = index_of(domain, index_folder)
    record: dict[str, Any] = {
        "cell": setting.name,
        "stage": setting.stage,
        "domain": setting.domain,
        "side": setting.side,
        "learning_rate": setting.learning_rate,
        "batch_size": setting.batch_size,
        "seed": setting.seed,
        "training_rows": 0 if setting.side == "base" else len(parts.train),
        "removed_rows": parts.removed,
        "likely_seen_by_base": domain.seen,
    }
    torch.manual_seed(setting.seed)
    encoder: Any = index.encoder()
    units: dict[str, np.ndarray] = {}
    if setting.side != "base":
        try:
            adapted = _train(setting, parts, index, record)
        except TrainingDiverged as error:
            return record | {"error": str(error), "score": None, "wall_seconds": _since(start)}, {}
        encoder = QuerySideEncoder(adapted, encoder) if setting.side == "query-side" else adapted
    if setting.stage == "final":
        result = evaluate(CachedEncoder(encoder), parts.test)
        units = packed(result)
        record["scored_with"] = SCORED_WITH
        record["result"] = summary(result)
        record["score"] = result.value
    return record | {"wall_seconds": _since(start)}, units


def _train(setting: Setting, parts: Parts, index: DocumentVectors, record: dict[str, Any]) -> LiveEncoder:
    model = load_base()
    overrides = {"learning_rate": setting.learning_rate, "batch_size": setting.batch_size}
    recipe = recipe_of(model, parts, setting.side, **{key: value for key, value in overrides.items() if value})
    memory = PeakMemory()
    memory.start()
    trained = make_trainable(model, "houlsby")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        done = fit(
            model,
            trained,
            parts.train,
            parts.dev,
            recipe,
            run=Path(folder),
            seed=setting.seed,
            index=index if setting.side == "query-side" else None,
        )
    record |= {
        "recipe": {name: value for name, value in recipe.to_dict().items() if name != "reasons"},
        "trained": {"values": trained.count, "share": trained.share, "rank": trained.rank},
        "fit": {
            "history": done.history,
            "dev_base": done.history[0]["score"],
            "steps": done.steps,
            "rows_per_second": round(done.rows_per_second, 2),
            "seconds": round(done.seconds, 1),
            "peak_memory_mib": memory.mib(),
        },
        "score": max(entry["score"] for entry in done.history if entry["step"] > 0),
    }
    return LiveEncoder(model, SCORING_LENGTH, bf16=False)


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 1)
