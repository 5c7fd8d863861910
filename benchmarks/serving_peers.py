"""Compare with infinity-emb: python benchmarks/serving_peers.py --data ../shared/bench --infinity ENVIRONMENT

ENVIRONMENT is the folder of a Python environment that has infinity-emb; without --infinity that side is left out. It
needs old versions, these work with Python 3.11: pip install "infinity-emb[server,torch]==0.0.78" "torch==2.13.0"
"optimum[onnxruntime]>=1.24,<2" "transformers<4.49" "datasets<4" "pyarrow<20" "numpy<2"

Servers run one at a time and are driven by the clients of `serving_load`, in two shapes: as fast as answers come, then
at half of the rate that this gave. The engine's own rate is that of DomainEncoder.encode with nothing beside it. Every
other round goes the other way round; ratios are taken within a round. Clients and server share the machine:
load_generator_cores says how much of it the clients took. Written to benchmarks/results/serving.json after each cell.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")  # infinity-emb reports on its use otherwise
sys.path.insert(0, str(Path(__file__).resolve().parent))

import httpx
import numpy as np
import serving_load
import torch
from adaptation.records import ROOT, provenance
from cell_store import write_text
from random_adapters import publish_random
from throughput import say, started, texts_of
from vector_agreement import least

ADAPTERS, RANK = 64, 87
SHAPES = {"32 clients of 1 row": (32, 1), "8 clients of 32 rows": (8, 32)}
OURS, MANY = "scions", f"scions, {ADAPTERS} adapters r={RANK}"
ENGINE, ENGINE_MANY = "engine", f"engine, {ADAPTERS} adapters r={RANK}"
# No access log, no trial of its speed at the start; the rest are its defaults, and what was found to be fastest.
INFINITY = "--served-model-name base --engine torch --url-prefix /v1 --log-level error --no-model-warmup --no-compile"
INFINITY_SIDES = {"infinity-emb": "--dtype auto", "infinity-emb bf16": "--dtype bfloat16 --no-bettertransformer"}
PACKAGES = ("infinity-emb", "torch", "transformers", "sentence-transformers", "optimum", "uvicorn", "fastapi")
BESIDE = {OURS: (*INFINITY_SIDES, ENGINE), MANY: (*INFINITY_SIDES, ENGINE_MANY)}
FIGURES = ("rows_a_second", "p50_ms", "p99_ms", "load_generator_cores", "server_cores", "memory_mb", "least_cosine")
COMPARED, WARMUP, START_SECONDS = 64, 3.0, 600


@dataclass(frozen=True)
class Server:
    """A command that serves; ``adapters`` go round the rows, ``expected`` are the vectors of the first texts."""

    command: Sequence[str]
    adapters: Sequence[str]
    expected: np.ndarray

    @contextlib.contextmanager
    def running(self) -> Iterator[tuple[str, int]]:
        """Its address and process id once it answers. It is ended whatever happens."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
            command = [*self.command, "--host", "127.0.0.1", "--port", str(port)]
            # A session of its own, so that what it starts can be ended with it.
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                if not answers(f"http://127.0.0.1:{port}", process):
                    log.seek(0)
                    raise SystemExit(f"{' '.join(command)}: does not answer\n{log.read()[-3000:]}")
                yield f"http://127.0.0.1:{port}", process.pid
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def cells(self, kinds: Sequence[str], texts: list[str], options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
        """What was measured in each shape."""
        with self.running() as (url, pid):
            agreed = least(self.vectors(url, texts[: len(self.expected)]), self.expected)
            for kind in kinds:
                clients, rows = SHAPES[kind]
                given = f"--url {url} --pid {pid} --clients {clients} --rows {rows} --adapters {len(self.adapters)} "
                given += f"--format {options.format} --seconds {options.seconds} --warmup {WARMUP}"
                full = driven(given, texts)
                half = driven(f"{given} --mode half --rate {full['rows_a_second']}", texts)
                yield kind, {"saturation": full | {"least_cosine": agreed}, "half": half}

    def vectors(self, url: str, texts: list[str]) -> np.ndarray:
        body: dict[str, Any] = {"model": "base", "input": texts}
        if self.adapters:
            body["adapter"] = [self.adapters[row % len(self.adapters)] for row in range(len(texts))]
        answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60).raise_for_status()
        return np.array([row["embedding"] for row in answer.json()["data"]])


@dataclass(frozen=True)
class Engine:
    """A call that takes all texts to vectors, with nothing beside it."""

    encode: Callable[[], Any]

    def cells(self, kinds: Sequence[str], texts: list[str], options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
        self.encode()
        runs, start, before = 0, time.perf_counter(), time.process_time()
        while not runs or time.perf_counter() - start < options.seconds:
            self.encode()
            runs += 1
        wall, used = time.perf_counter() - start, time.process_time() - before
        rate = round(runs * len(texts) / wall, 1)
        yield kinds[0], {"saturation": {"rows_a_second": rate, "server_cores": round(used / wall, 2)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the bench folder; the docstring corpus where it is left out")
    parser.add_argument("--infinity", type=Path, help="the environment's folder")
    parser.add_argument("--texts", type=int, default=3200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="measured of each load, after the warm-up")
    parser.add_argument("--format", choices=("float", "base64"), default="float", help="of vectors in answers")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "serving.json")
    parser.add_argument("--fresh", action="store_true", help="forget the rounds there are")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit that ends the server that runs
    with tempfile.TemporaryDirectory() as folder:
        record = measure(options, Path(folder))
    for row, found in record["summary"].items():
        print(f"{row}: " + ", ".join(f"{figure} {span[0]:g}" for figure, span in found.items()))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All cells that are missing; the record is written after each."""
    from scions import DomainEncoder
    from scions.store import load_base, resolve_base

    texts, source = texts_of(options.data, options.texts)
    encoder, names = DomainEncoder(), [f"domain-{number:02}" for number in range(ADAPTERS)]
    for number, name in enumerate(names):
        encoder.load_adapter(publish_random(folder / name, encoder, RANK, seed=number))
    mixed = [names[row % ADAPTERS] for row in range(len(texts))]
    plain = load_base().encode(texts[:COMPARED], show_progress_bar=False)
    ours = (sys.executable, "-c", "from scions.cli import main; main()", "serve", "--adapters", str(folder))
    theirs, asked, versions = {}, {}, None
    if options.infinity:
        python, versions = infinity(options.infinity)
        for name, own in INFINITY_SIDES.items():
            if encoder.compute_dtype == torch.bfloat16 or "bfloat16" not in own:
                asked[name] = f"{INFINITY} {own} --device {encoder.device.type}"
                theirs[name] = Server((*python, "--model-id", resolve_base(), *asked[name].split()), [], plain)
    origin = provenance()
    setting = {
        "texts": {"source": source, "rows": len(texts)},
        **{key: getattr(options, key) for key in ("seconds", "format")},
        "computes_in": str(encoder.compute_dtype).removeprefix("torch."),
        "infinity": {"versions": versions, "options": asked} if versions else "left out: no --infinity",
        **{key: origin[key] for key in ("source_sha256", "machine", "versions")},
    }
    sides: dict[str, Server | Engine] = {
        **theirs,
        OURS: Server(ours, [], plain),
        MANY: Server(ours, names, encoder.encode(texts[:COMPARED], adapter=mixed[:COMPARED])),
        ENGINE: Engine(lambda: encoder.encode(texts)),
        ENGINE_MANY: Engine(lambda: encoder.encode(texts, adapter=mixed)),
    }
    record = started(options.output, setting, options.fresh)
    record["rounds"] += [{} for _ in range(options.rounds - len(record["rounds"]))]
    for number, found in enumerate(record["rounds"]):
        # There and back again: a machine that slows down meanwhile does so for all sides.
        for name in list(sides)[:: -1 if number % 2 else 1]:
            kinds = SHAPES if isinstance(sides[name], Server) else ("alone",)
            if missing := [kind for kind in kinds if kind not in found.get(name, {})]:
                say(f"round {number + 1} of {options.rounds}: {name}")
                for kind, cell in sides[name].cells(missing, texts, options):
                    found.setdefault(name, {})[kind] = cell
                    record |= {"summary": summary(record["rounds"]), "provenance": origin}
                    write_text(options.output, json.dumps(record, indent=1) + "\n")
    return record


def infinity(environment: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The beginning of its command, and the versions of what is in its environment."""
    place = environment.absolute() / "bin"
    python = (f"{place}/python", "-E")  # without this environment's PYTHONPATH
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    told = subprocess.run([*python, "-c", code, *PACKAGES], stdout=subprocess.PIPE, text=True, check=True).stdout
    return (*python, f"{place}/infinity_emb", "v2"), dict(zip(PACKAGES, told.split(), strict=True))


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait for a first vector; False where none comes."""
    end, body = time.perf_counter() + START_SECONDS, {"model": "base", "input": "a"}
    while process.poll() is None and time.perf_counter() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(f"{url}/v1/embeddings", json=body, timeout=30).is_success:
                return True
        time.sleep(0.2)
    return False


def driven(given: str, texts: list[str]) -> dict[str, Any]:
    record = asyncio.run(serving_load.load(serving_load.arguments().parse_args(given.split()), texts))
    record["memory_mb"] = max(memory for _, memory in record["memory_mb"])
    if record["failures"] or not record["requests"]:
        raise SystemExit(f"{record['requests']} answers in {record['seconds']} seconds, failures: {record['failures']}")
    say(f"{record['clients']} x {record['rows_a_request']}, {record['mode']}: {record['rows_a_second']} rows/s")
    return record


def figures(cells: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Of one round: (row, figure, value), with ratios of rates at saturation."""
    for name, kinds in cells.items():
        for kind, cell in kinds.items():
            for mode, found in cell.items():
                for what in filter(found.__contains__, FIGURES):
                    yield f"{name}, {kind}", f"{mode} {what}", found[what]
            for other in BESIDE.get(name, ()):
                there = cells.get(other, {})
                if beside := there.get(kind, there.get("alone")):
                    ratio = cell["saturation"]["rows_a_second"] / beside["saturation"]["rows_a_second"]
                    yield f"{name}, {kind}", f"rate to {other}", ratio


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """By row and figure: median, least and most over the rounds."""
    values: dict[str, dict[str, list[float]]] = {}
    for row, figure, value in itertools.chain.from_iterable(map(figures, rounds)):
        values.setdefault(row, {}).setdefault(figure, []).append(value)
    return {
        row: {figure: [round(span(found), 5) for span in (median, min, max)] for figure, found in of.items()}
        for row, of in values.items()
    }


if __name__ == "__main__":
    main()
