"""Measure size on disk and loading time of an adapter of 3.6 %: python benchmarks/adapter_load.py

Loading is all of it: manifest and weights read from disk, checked, and put into a model that already serves another
adapter. Written to benchmarks/results/adapter_load.json.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from adaptation.records import ROOT, provenance

ROUNDS = 30


def main() -> None:
    import scions
    from scions.encoder.inject import inject_adapter, network_of
    from scions.store import load_base, read_adapter

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pairs.jsonl"
        words = ["valve", "pipe", "court", "clause", "fever", "dose", "stack", "queue"]
        lines = [
            json.dumps({"anchor": f"{a} {b} number {i}", "positive": f"the {b} of a {a}, {i} times"})
            for i in range(5)
            for a in words
            for b in words
        ]
        data.write_text("\n".join(lines) + "\n")
        path = scions.train(data, "probe", epochs=1, adapters=folder, force=True).path
        assert path is not None
        model = load_base()
        config, _, weights = read_adapter(path)
        inject_adapter(model, "first", config, weights)
        seconds = []
        for i in range(ROUNDS):
            start = time.perf_counter()
            config, _, weights = read_adapter(path)
            inject_adapter(model, f"next-{i}", config, weights)
            seconds.append(time.perf_counter() - start)
            network_of(model).delete_adapter(f"next-{i}")
        record = {
            "bytes": {file.name: file.stat().st_size for file in sorted(path.iterdir())},
            "bytes_in_all": sum(file.stat().st_size for file in path.iterdir()),
            "milliseconds": {
                "median": round(1e3 * statistics.median(seconds), 2),
                "least": round(1e3 * min(seconds), 2),
                "most": round(1e3 * max(seconds), 2),
            },
            "rounds": ROUNDS,
            "provenance": provenance(),
        }
    target = ROOT / "benchmarks" / "results" / "adapter_load.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
