"""Measure the cost of `adapter="auto"` against naming the adapter: python benchmarks/auto_throughput.py

Texts of one package of the built-in corpus, adapters for all six packages (random weights, the packages' own
statistics). Both ways take turns in one process. Written to benchmarks/results/auto_throughput.json.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from adaptation.records import ROOT, provenance
from cell_store import write_text
from random_adapters import publish_random

PACKAGES = ("numpy", "scipy", "sklearn", "torch", "pandas", "transformers")
ROWS = (32, 128, 512, 1024, 4096)
ROUNDS = 5


def main() -> None:
    from scions.data import read_splits
    from scions.encoder import DomainEncoder
    from scions.store import DomainStatistics, Manifest, load_base

    encoder = DomainEncoder()
    base = load_base()
    texts: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, package in enumerate(PACKAGES):
            own = read_splits(f"docstrings:{package}").train.texts()
            texts = texts or own
            vectors = encoder.encode(own[:500], normalize_embeddings=True)
            mean = vectors.mean(axis=0)
            place = publish_random(Path(folder) / package, base, 87, number)
            manifest = Manifest.from_json((place / "scions.json").read_text())
            variance = float(((vectors - mean) ** 2).mean())
            domain = DomainStatistics(mean=mean.tolist(), spherical_variance=variance, n=len(vectors))
            (place / "scions.json").write_text(replace(manifest, domain=domain).to_json())
            encoder.load_adapter(place)
    found = []
    for rows in ROWS:
        some = (texts * (rows // len(texts) + 1))[:rows]
        chosen = encoder.route(some).adapter
        times: dict[str, list[float]] = {"named": [], "auto": []}
        for turn in range(ROUNDS + 1):
            for way, adapter in (("named", chosen), ("auto", "auto")):
                start = time.perf_counter()
                encoder.encode(some, adapter=adapter)
                if turn:  # the first is to warm up
                    times[way].append(time.perf_counter() - start)
        ratios = [named / auto for named, auto in zip(times["named"], times["auto"], strict=True)]
        record = {"rows": rows, "adapter": chosen, "to_named": round(statistics.median(ratios), 4)}
        record["spread"] = [round(min(ratios), 4), round(max(ratios), 4)]
        record["rows_per_second"] = {way: round(rows / statistics.median(taken), 1) for way, taken in times.items()}
        found.append(record)
        print(record, flush=True)
    target = ROOT / "benchmarks" / "results" / "auto_throughput.json"
    write_text(target, json.dumps({"provenance": provenance(), "rounds": ROUNDS, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
