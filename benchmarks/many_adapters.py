"""Register 10,000 adapters with few of them in memory: python benchmarks/many_adapters.py

Folders in a temporary place share the weights of a few adapters (r = 87) by hard links; names and manifests are their
own. They go through the server's shelf: time to start, to load one on first use and to find one that is loaded, and
the memory all that takes. Written to benchmarks/results/many_adapters.json.

Hard links mean that the few weights' files lie in the system's cache. ``cold_ms`` is with that cache: read, checked,
laid out. For ``cold_from_disk_ms`` the system is told to forget a file before it is read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from adaptation.records import ROOT, PeakMemory, provenance
from cell_store import write_text
from random_adapters import publish_random

SOURCES, RANK = 8, 87
HOT, FROM_DISK = 20_000, 200
CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "scions.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registered", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=3000, help="of adapters that are not in memory")
    parser.add_argument("--memory", type=int, default=256, help="MiB for loaded adapters")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made: the disk that is measured")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "many_adapters.json")
    options = parser.parse_args()
    if options.loads >= options.registered:
        parser.error("--loads must be less than --registered: each adapter is loaded once")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        record = asyncio.run(measure(options, Path(folder))) | {"provenance": provenance()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Register, load one after another, look up."""
    from scions import DomainEncoder
    from scions.serving import BaseInfo, Settings, build

    start = time.perf_counter()
    encoder = DomainEncoder()
    base_info = BaseInfo.of(encoder)
    base_seconds = time.perf_counter() - start
    root = folder / "adapters"
    names = register(root, folder / "sources", encoder, options.registered)

    limit = options.memory * 2**20
    start = time.perf_counter()
    app = build(encoder, base_info, encoder.read_adapter, root, settings=Settings(memory=limit))
    build_seconds = time.perf_counter() - start
    adapter_cache = app.state.service.adapter_cache
    if adapter_cache.registered != options.registered:
        raise SystemExit(f"{adapter_cache.registered} adapters were registered, there are {options.registered}")

    chosen = [names[i] for i in np.random.default_rng(0).permutation(len(names))[: options.loads + 1]]
    first_ms = await timed(adapter_cache, chosen[0])  # imports and checks that happen once
    own = adapter_cache.loaded_bytes
    memory, most, resident = PeakMemory(), 0, []
    memory.start()
    cold = []
    for number, name in enumerate(chosen[1:], 1):
        cold.append(await timed(adapter_cache, name))
        most = max(most, adapter_cache.loaded_bytes)
        if number % max(1, options.loads // 10) == 0:
            resident.append(round((memory.process.memory_info().rss - memory.before) / 2**20, 1))
    peak = memory.mib()
    if adapter_cache.misses != options.loads + 1 or adapter_cache.evictions == 0:
        raise SystemExit(
            f"{adapter_cache.misses} reads, {adapter_cache.evictions} evictions: give more --loads or less --memory"
        )
    held = chosen[-min(options.loads, limit // own) :]
    hot = [await timed(adapter_cache, held[number % len(held)]) for number in range(HOT)]
    if adapter_cache.hits != HOT:
        raise SystemExit(f"{HOT - adapter_cache.hits} of {HOT} look-ups read their adapter again")
    from_disk = []
    for name in chosen[1 : 1 + min(FROM_DISK, options.loads - len(held))]:
        if forget(root / name / WEIGHTS):
            from_disk.append(await timed(adapter_cache, name))
    adapter_cache.close()
    return {
        "registered": options.registered,
        "distinct_weights": SOURCES,
        "rank": RANK,
        "bytes_of_one_on_disk": (root / names[0] / WEIGHTS).stat().st_size,
        "bytes_of_one_in_memory": own,
        "memory_limit_bytes": limit,
        "most_loaded_bytes": most,
        "evictions": adapter_cache.evictions,
        "resident_growth_mib": {"peak": peak, "after_each_tenth_of_the_loads": resident},
        "start_seconds": {"base": round(base_seconds, 2), "register": round(build_seconds, 2)},
        "first_load_ms": round(first_ms, 2),
        "cold_ms": quantiles(cold),
        "cold_from_disk_ms": quantiles(from_disk),
        "hot_ms": quantiles(hot),
    }


def register(root: Path, sources: Path, base: Any, number: int) -> list[str]:
    """Make so many folders of adapters under ``root``; returns their names."""
    made = [publish_random(sources / f"source-{seed}", base, RANK, seed) for seed in range(SOURCES)]
    manifests = [json.loads((source / MANIFEST).read_text(encoding="utf-8")) for source in made]
    names = [f"domain-{count:05}" for count in range(number)]
    for count, name in enumerate(names):
        source, folder = made[count % SOURCES], root / name
        folder.mkdir(parents=True)
        for file in (CONFIG, WEIGHTS):
            link(source / file, folder / file)
        manifest = manifests[count % SOURCES] | {"name": name}
        (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return names


def link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def forget(file: Path) -> bool:
    """Have the system drop a file from its cache; False where it has no call for that."""
    if not hasattr(os, "posix_fadvise"):
        return False
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return True


async def timed(adapter_cache: Any, name: str) -> float:
    """Milliseconds until the weights are there; they are let go at once."""
    start = time.perf_counter()
    await adapter_cache.get(name)
    return 1e3 * (time.perf_counter() - start)


def quantiles(values: list[float]) -> dict[str, float] | None:
    """Median, 99th percentile and most of milliseconds."""
    if not values:
        return None
    p50, p99 = np.percentile(values, [50, 99])
    return {"median": round(float(p50), 4), "p99": round(float(p99), 4), "most": round(max(values), 4)}


if __name__ == "__main__":
    main()
