"""Train on texts without labels and score the task of their domain: python benchmarks/plain_texts.py --data PATH

1500 texts of a domain train an adapter in one epoch; it is scored on development rows, or, for the classification
tasks, by logistic regressions on few labels (see preserving/labels.py). The cells are kept in
benchmarks/results/plain_texts; a cell that exists is not computed again.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from adaptation.cells import SCORING_LENGTH, recipe_for
from adaptation.options import parsed, parser_for
from adaptation.records import ROOT, provenance
from cell_store import Cells, write_text
from combining.domains import load
from preserving.labels import TASKS, few_labels

from scions.data import Shape, Table, read
from scions.evaluation import dev_score
from scions.store import load_base
from scions.training.fit import fit
from scions.training.live_encoder import LiveEncoder
from scions.training.trainable import make_trainable

ROWS, HELD_OUT = 1500, 600
TRAIN_TEST = ("train", "test")
DOMAINS = (*TASKS, "doc-sklearn", "medquad", "banking77", "stackoverflow", "patents")
WAYS: dict[str, dict[str, Any] | None] = {
    "base": None,
    "deletion": {"objective": "deletion"},
    "simcse": {"objective": "simcse"},
    "deletion, four times the rate": {"objective": "deletion", "learning_rate": 4e-4},
    "simcse, the whole rate": {"objective": "simcse", "learning_rate": 1.2e-3},
}


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "plain_texts")
    options = parsed(parser)
    cells = Cells(options.results, provenance())
    for way in options.ways:
        for domain in options.domains:
            name = f"{domain}-{way.replace(',', '').replace(' ', '-')}"
            if not cells.has(name):
                cells.write(name, {"domain": domain, "way": way, **_measured(domain, way, options.data)})
                found = cells.load(name)
                print(f"{time.strftime('%H:%M:%S')} {name}: {found['score']:.2f}, {found['seconds']} s", flush=True)
    lines = ["| domain | " + " | ".join(WAYS) + " |", "|---" * (1 + len(WAYS)) + "|"]
    for domain in DOMAINS:
        found = {one["way"]: one for one in cells.all(domain)}
        shown = [f"{found[way]['score']:.2f} ({found[way]['seconds']:.0f} s)" if way in found else "" for way in WAYS]
        lines.append(f"| {domain} | {' | '.join(shown)} |")
    write_text(cells.folder / "table.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def _measured(domain: str, way: str, data: Path) -> dict[str, Any]:
    import torch

    if domain in TASKS:
        train, test = (read(str(data / "tasks" / domain / f"{part}.jsonl"), shape="labelled") for part in TRAIN_TEST)
        texts = train.texts()
    else:
        parts = load(domain, data, ROWS, HELD_OUT)
        texts = list((parts.train.corpus or {}).values()) or parts.train.texts()
    texts = [texts[i] for i in np.random.default_rng(1).permutation(len(texts))[:ROWS]]
    torch.manual_seed(0)
    model, seconds = load_base(), 0.0
    settings = WAYS[way]
    if settings is not None:
        table = Table(Shape.TEXTS, {"text": list(dict.fromkeys(texts))}, domain)
        recipe = recipe_for(table, "houlsby", epochs=1, **settings)
        with tempfile.TemporaryDirectory() as run, contextlib.redirect_stdout(io.StringIO()):
            seconds = fit(model, make_trainable(model, "houlsby"), table, None, recipe, run=Path(run)).seconds
    encoder = LiveEncoder(model, SCORING_LENGTH)
    if domain in TASKS:
        vectors = [encoder.encode(table.columns["text"]) for table in (train, test)]
        labels = [np.array(table.columns["label"]) for table in (train, test)]
        score = float(few_labels(vectors[0], labels[0], vectors[1], labels[1]).mean())
    else:
        score = dev_score(encoder, parts.dev)
    return {"score": score, "seconds": round(seconds, 1), "texts": len(texts)}


if __name__ == "__main__":
    sys.exit(main())
