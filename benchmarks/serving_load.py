"""Put load on any embeddings server: python benchmarks/serving_load.py --clients 8 --rows 32

N clients, each with one connection, send k rows, wait for the answer, and send the next (a closed loop). Modes:

    saturation  as fast as answers come
    half        half of --rate rows a second, on a schedule: latency counts from when a request was due
    soak        as saturation, while an adapter is added, one replaced and both removed every second (--folder)

Reports rows and requests a second, p50 and p99 of latency (both of the answers that came in the measured span),
failures by kind, how many cores the clients took, and with --pid the server's cores and memory. The server must be on
this machine.

Clients share the processor with the server, so they are light: requests are written before the clock starts, and
answers are read in full and not parsed, but every 50th of each client, which must hold a vector for every row.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import ipaddress
import json
import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

_CHECKED = 50  # one answer in so many is parsed
_SECONDS, _MOST_BYTES = 60.0, 2**22  # for an answer; held unread of one
_BODIES = 512  # different requests, written once, so that the clock sees the server and not json.dumps


@dataclass
class Tally:
    """What the clients saw; times in seconds since the measured span began."""

    latencies: list[float] = field(default_factory=list)
    rows: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)


def texts_of(place: Path | None) -> list[str]:
    """Sentences: of a jsonl file with sentence1 and sentence2, of a text file's lines, or of the docstring corpus."""
    if place is None:
        from scions.data import read_docstrings

        return [text[:400] for text in read_docstrings().test.texts()]
    lines = place.read_text(encoding="utf-8").splitlines()
    if place.suffix == ".jsonl":
        rows = [json.loads(line) for line in lines]
        return [row[name] for row in rows for name in ("sentence1", "sentence2")]
    return [line for line in lines if line.strip()]


def bodies_of(texts: list[str], adapters: list[str], args: argparse.Namespace) -> list[bytes]:
    """Requests of ``args.rows`` rows; adapters go round the rows."""
    order = np.random.default_rng(args.seed).permutation(len(texts))
    chosen = [texts[i] for i in order]
    bodies = []
    for number in range(_BODIES):
        rows = [chosen[(number * args.rows + i) % len(chosen)] for i in range(args.rows)]
        body: dict[str, Any] = {"model": args.model, "input": rows, "encoding_format": args.format}
        if adapters:
            body["adapter"] = [adapters[(number * args.rows + i) % len(adapters)] for i in range(args.rows)]
        bodies.append(json.dumps(body).encode())
    return bodies


class Connection:
    """HTTP/1.1 to ``/v1/embeddings`` over one connection that is kept, and opened again after a failure."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url)
        self._place = parts.hostname or "", parts.port or 80
        lines = [f"POST {parts.path.rstrip('/')}/v1/embeddings HTTP/1.1", f"Host: {parts.netloc}"]
        lines += ["Content-Type: application/json", *([f"Authorization: Bearer {key}"] if key else [])]
        self._head = "\r\n".join(lines).encode()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Status and content of the answer. Without one: OSError, EOFError, ValueError or asyncio.TimeoutError."""
        try:
            return await asyncio.wait_for(self._post(body), _SECONDS)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError):
            self.close()
            raise

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._place, limit=_MOST_BYTES)
        reader, writer = self._streams
        writer.write(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines if line)
        if b"content-length" not in headers:
            raise ValueError("an answer without its length")
        content = await reader.readexactly(int(headers[b"content-length"]))
        if headers.get(b"connection") == b"close":
            self.close()
        return int(first.split()[1]), content

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def complete(content: bytes, rows: int) -> bool:
    """Whether an answer holds so many vectors of one length, in order."""
    data = json.loads(content)["data"]
    found = [row["embedding"] for row in data]
    vectors = [np.frombuffer(base64.b64decode(v), "<f4") if isinstance(v, str) else np.array(v) for v in found]
    whole = len({len(v) for v in vectors}) == 1 and all(np.isfinite(v).all() and v.any() for v in vectors)
    return [row["index"] for row in data] == list(range(rows)) and whole


async def client(number: int, http: Connection, bodies: list[bytes], span: Span, tally: Tally) -> None:
    """One client: due at once, or every ``span.interval`` seconds."""
    turn, sent = number, 0
    due = span.start + (number / max(1, span.clients)) * span.interval
    while True:
        if span.interval:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        begun = due if span.interval else time.perf_counter()
        if begun >= span.end:
            return
        problem = None
        try:
            status, content = await http.post(bodies[turn % len(bodies)])
            finished = time.perf_counter()
            if status != 200:
                problem = str(status)
            elif sent % _CHECKED == 0 and not complete(content, span.rows):
                problem = "not a vector for every row"
        except (OSError, EOFError, ValueError, KeyError, asyncio.TimeoutError) as error:
            problem, finished = type(error).__name__, time.perf_counter()
        sent += 1
        # By the end alone: to leave out what was begun before would count too few rows of a slow server.
        if problem is None and span.measured <= finished <= span.end:
            tally.latencies.append(finished - begun)
            tally.rows += span.rows
        if problem is not None:
            tally.failures[problem] += 1
            await asyncio.sleep(0.05)
        turn += span.clients
        due += span.interval


@dataclass(frozen=True)
class Span:
    """When it starts, is measured from, and ends; ``interval`` seconds between a client's requests, 0 for none."""

    start: float
    measured: float
    end: float
    interval: float
    clients: int
    rows: int


async def change(http: httpx.AsyncClient, folder: Path, sources: list[str], end: float, tally: Tally) -> None:
    """Each second: add an adapter, replace another, remove the first and the other's old version."""
    turn = 0
    while time.perf_counter() < end:
        turn += 1
        added, replaced = f"soak-add-{turn}", "soak-replace"
        for name in (added, replaced):
            aside = folder / f".{name}"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(folder / sources[turn % len(sources)], aside)
            shutil.rmtree(folder / name, ignore_errors=True)
            aside.rename(folder / name)
        try:
            answers = [await http.post("/v1/adapters", json={"folder": name}) for name in (added, replaced)]
            answers.append(await http.post("/v1/embeddings", json={"model": added, "input": "a"}))
            answers.append(await http.post("/v1/embeddings", json={"model": replaced, "input": "a"}))
            answers.append(await http.delete(f"/v1/adapters/{added}"))
            for old in answers[1].json().get("versions", [])[1:]:
                answers.append(await http.delete(f"/v1/adapters/{replaced}@{old['version']}"))
            for answer in answers:
                if answer.status_code != 200:
                    tally.failures[f"change {answer.request.url.path} {answer.status_code}"] += 1
        except httpx.HTTPError as error:
            tally.failures[f"change {type(error).__name__}"] += 1
        shutil.rmtree(folder / added, ignore_errors=True)
        tally.changes += 1
        await asyncio.sleep(1)
    shutil.rmtree(folder / "soak-replace", ignore_errors=True)


async def watch(pid: int, start: float, end: float, tally: Tally) -> None:
    """The server's resident memory in MB, every five seconds."""
    import psutil

    process = psutil.Process(pid)
    while time.perf_counter() < end:
        tally.memory.append((round(time.perf_counter() - start, 1), round(process.memory_info().rss / 1e6, 1)))
        await asyncio.sleep(max(0.0, min(5.0, end - time.perf_counter())))


def seconds_of(pid: int) -> float:
    """Processor time that a process has taken so far."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def load(args: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """Run one mode; returns its record."""
    headers = {"Authorization": f"Bearer {args.key}"} if args.key else {}
    async with httpx.AsyncClient(base_url=args.url, headers=headers, timeout=60) as http:
        adapters = await chosen_adapters(http, args.adapters)
        bodies = bodies_of(texts, adapters, args)
        now = time.perf_counter()
        interval = args.clients * args.rows / (args.rate / 2) if args.mode == "half" else 0.0
        end = now + args.warmup + args.seconds
        span = Span(now, now + args.warmup, end, interval, args.clients, args.rows)
        tally = Tally()
        connections = [Connection(args.url, args.key) for _ in range(args.clients)]
        tasks = [client(number, one, bodies, span, tally) for number, one in enumerate(connections)]
        if args.mode == "soak":
            tasks.append(change(http, args.folder, adapters or ["legal"], end, tally))
        if args.pid:
            tasks.append(watch(args.pid, now, end, tally))
        processes = {"load_generator_cores": os.getpid()} | ({"server_cores": args.pid} if args.pid else {})
        before = {what: seconds_of(pid) for what, pid in processes.items()}
        await asyncio.gather(*tasks)
        wall = time.perf_counter() - now
        cores = {what: round((seconds_of(pid) - before[what]) / wall, 2) for what, pid in processes.items()}
        for one in connections:
            one.close()
    record: dict[str, Any] = {
        "mode": args.mode,
        "clients": args.clients,
        "rows_a_request": args.rows,
        "adapters": len(adapters),
        "encoding_format": args.format,
        "seconds": args.seconds,
        "rows_a_second": round(tally.rows / args.seconds, 1),
        "requests": len(tally.latencies),
        "failures": dict(tally.failures),
        **cores,
    }
    if tally.latencies:
        p50, p99 = np.percentile(tally.latencies, [50, 99]) * 1000
        record |= {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}
    if args.mode == "half":
        record["offered_rows_a_second"] = args.rate / 2
    if args.mode == "soak":
        record["changes"] = tally.changes
    if tally.memory:
        record["memory_mb"] = tally.memory
    return record


async def chosen_adapters(http: httpx.AsyncClient, number: int) -> list[str]:
    """The first ``number`` adapters of the server; none for 0, which suits servers that have none."""
    if not number:
        return []
    names = [model["id"] for model in (await http.get("/v1/models")).json()["data"]]
    names = [name for name in names if name != "base" and not name.startswith("soak-")][:number]
    if len(names) < number:
        raise SystemExit(f"the server has {len(names)} adapters, --adapters asks for {number}")
    return names


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", default=os.environ.get("SCIONS_KEY"))
    parser.add_argument("--mode", choices=("saturation", "half", "soak"), default="saturation")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32, help="rows of a request")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured, after the warm-up")
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--rate", type=float, help="half: rows a second at saturation")
    parser.add_argument("--model", default="base")
    parser.add_argument("--adapters", type=int, default=0, help="so many of the server's adapters, one a row in turn")
    parser.add_argument("--format", choices=("float", "base64"), default="float")
    parser.add_argument("--texts", type=Path, help="jsonl with sentence1 and sentence2, or a text file")
    parser.add_argument("--folder", type=Path, help="soak: the server's folder of adapters")
    parser.add_argument("--pid", type=int, help="the server's process, whose memory is watched")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="append the record to this file, a JSON object a line")
    return parser


def main() -> None:
    parser = arguments()
    args = parser.parse_args()
    host = urlsplit(args.url).hostname or ""
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        parser.error("--url must be on this machine: this is load, and belongs on no one else's server")
    if args.mode == "half" and not args.rate:
        parser.error("--mode half needs --rate, the rows a second that --mode saturation gave")
    if args.mode == "soak" and not args.folder:
        parser.error("--mode soak needs --folder")
    record = asyncio.run(load(args, texts_of(args.texts)))
    print(json.dumps(record, indent=2))
    if args.output:
        with open(args.output, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
    sys.exit(bool(record["failures"]))


if __name__ == "__main__":
    main()
