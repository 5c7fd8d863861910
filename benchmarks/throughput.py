"""Measure rows a second with and without adapters: python benchmarks/throughput.py --data ../shared/bench

DATA/sts/sts15.jsonl gives the texts, the docstring corpus where --data is left out. Every side gets strings and gives
vectors, so the tokeniser is in all figures. In each round every side runs once; figures are medians over the rounds
with their range, ratios are taken within a round. Sides with 64 rows a batch take turns batch by batch, because what is
between them is less than what a shared machine's speed changes from one second to the next. Written to
benchmarks/results/throughput.json after each round: a run that was broken off goes on where it stopped. --markdown
prints the tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from adaptation.records import ROOT, provenance
from cell_store import write_text
from peft_peers import ROWS, PeftPeers
from random_adapters import publish_random
from vector_agreement import batchings, cosines, least, same

RANKS, COUNTS, MOST = (87, 24), (0, 1, 8, 64), 64
PEER_STEP = 5  # every fifth text, for the side that would take minutes
FIRST, BF16 = "sentence-transformers fp32", "sentence-transformers bf16"
DEFAULT, ONE, MANY = (f"DomainEncoder, {what}" for what in ("base only", "one adapter r=87", "64 adapters r=87"))
FLOAT = "DomainEncoder float32, base only"
EXACT, EXACT_MANY = (f"DomainEncoder deterministic, {what}" for what in ("base only", "64 adapters r=87"))
MIXED, SWAPPED = "PEFT mixed batch, 64 LoRA bf16", "PEFT one LoRA after another, 64 LoRA bf16, every fifth text"
PLAIN = "SCIONS_NATIVE=0: "
Run = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Side:
    """One thing to measure: ``run`` takes ``rows`` texts to vectors."""

    run: Run
    rows: int

    def rate(self) -> float:
        """Rows a second of one run."""
        start = time.perf_counter()
        self.run()
        return round(self.rows / (time.perf_counter() - start), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the bench folder; the docstring corpus where it is left out")
    parser.add_argument("--texts", type=int, default=3200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "throughput.json")
    parser.add_argument("--fresh", action="store_true", help="forget the rounds there are")
    parser.add_argument("--markdown", action="store_true", help="print the tables of what was measured, and no more")
    options = parser.parse_args()
    if not options.markdown:
        with tempfile.TemporaryDirectory() as folder:
            measure(options, Path(folder))
    print(markdown(json.loads(options.output.read_text(encoding="utf-8"))))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """All rounds that are missing, and once how far vectors agree; writes the record after each."""
    from scions import DomainEncoder
    from scions.engine.kernels.build import kernels
    from scions.store import Manifest

    texts, source = texts_of(options.data, options.texts)
    encoder = DomainEncoder()
    tokens = [len(ids) for ids in encoder.tokenize_rows(texts)[0]]
    origin = provenance()
    setting = {
        "texts": {"source": source, "rows": len(texts), "mean_tokens": round(statistics.mean(tokens), 2)},
        "longest_text_in_tokens": max(tokens),
        "base": encoder.base_name,
        "computes_in": str(encoder.compute_dtype).removeprefix("torch."),
        "compiled_kernels": kernels() is not None,
        **{key: origin[key] for key in ("source_sha256", "machine", "versions")},
    }
    record = started(options.output, setting, options.fresh)
    if len(record["rounds"]) >= options.rounds and "agreement" in record:
        return
    say("publishing adapters")
    names = published(folder, encoder)
    ours = {DEFAULT: encoder, FLOAT: DomainEncoder(dtype="float32"), EXACT: DomainEncoder(deterministic=True)}
    for one in ours.values():
        load(one, folder, names if one is encoder else {87: names[87]})
    peft = PeftPeers(texts, Manifest.read(folder / names[87][0]).trainable_parameters, str(encoder.device))
    record["peft_lora_rank"] = peft.rank
    sides = parent_sides(texts, ours, names, peft)
    say("warming up")
    for side in sides.values():
        side.run()
    turns(texts, encoder, names)
    child = None
    if setting["compiled_kernels"] and len(record["rounds"]) < options.rounds:
        # In a process of its own, because whether there are kernels is settled once a process.
        context = multiprocessing.get_context("spawn")
        child, other = context.Pipe()
        context.Process(target=without_kernels, args=(other, texts, folder, names), daemon=True).start()
        other.close()  # so that a child that fails is an error here, and not waited for
        child.recv()
    for number in range(len(record["rounds"]), options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        # There and back again: a machine that slows down meanwhile does so for all sides.
        order = list(sides)[:: -1 if number % 2 else 1]
        rates = {name: sides[name].rate() for name in order} | turns(texts, encoder, names)
        if child is not None:
            child.send(True)
            rates |= child.recv()
        record["rounds"].append({name: rates[name] for name in [*sides, *(n for n in rates if n not in sides)]})
        save(options.output, record, origin)
    if child is not None:
        child.send(False)
    if "agreement" not in record:
        say("comparing vectors")
        record["agreement"] = agreement(texts, ours, names, folder, sides, peft)
        save(options.output, record, origin)


def texts_of(data: Path | None, most: int) -> tuple[list[str], str]:
    """At most so many texts, and what to call them."""
    if data is None:
        from scions.data import read_docstrings

        return [text[:400] for text in read_docstrings().test.texts()][:most], "docstring corpus, test part, cut at 400"
    lines = (data / "sts" / "sts15.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row[name] for row in rows for name in ("sentence1", "sentence2")][:most], "STS15"


def started(path: Path, setting: dict[str, Any], fresh: bool) -> dict[str, Any]:
    """The record so far. Ends the program where it was measured with something else."""
    if fresh or not path.exists():
        return {"setting": setting, "rounds": []}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    other = [key for key in setting if record["setting"].get(key) != setting[key]]
    if other:
        raise SystemExit(f"{path}: was measured with another {', '.join(other)}; start anew with --fresh")
    return record


def save(path: Path, record: dict[str, Any], origin: dict[str, Any]) -> None:
    record |= {"summary": summary(record["rounds"]), "provenance": origin}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def published(folder: Path, base: Any) -> dict[int, list[str]]:
    """Publish the adapters of each rank; returns their names."""
    names = {rank: [f"r{rank}-{number:02}" for number in range(MOST)] for rank in RANKS}
    for rank in RANKS:
        for number, name in enumerate(names[rank]):
            publish_random(folder / name, base, rank, seed=1000 * rank + number)
    return names


def load(encoder: Any, folder: Path, names: Mapping[int, Sequence[str]]) -> None:
    for name in itertools.chain.from_iterable(names.values()):
        encoder.load_adapter(folder / name)


def spread(encoder: Any, texts: Sequence[str], names: Sequence[str]) -> list[str]:
    """The adapter of each row, so that every batch of 64 rows (they are cut by length) has all of ``names`` in it."""
    from scions.engine.batches import batches_by_length

    chosen = [""] * len(texts)
    for batch in batches_by_length(np.array([len(ids) for ids in encoder.tokenize_rows(texts)[0]]), ROWS):
        for place, row in enumerate(batch.tolist()):
            chosen[row] = names[place % len(names)]
    return chosen


def encoder_sides(texts: Sequence[str], encoder: Any, names: Mapping[int, Sequence[str]]) -> dict[str, Side]:
    """The default engine in its default batches."""

    def side(adapter: Any) -> Side:
        return Side(lambda: encoder.encode(texts, adapter=adapter), len(texts))

    return {DEFAULT: side(None), ONE: side(names[87][0]), MANY: side(spread(encoder, texts, names[87]))}


def turns(texts: Sequence[str], encoder: Any, names: Mapping[int, Sequence[str]], before: str = "") -> dict[str, float]:
    """Rows a second with 64 rows a batch, by rank and number of adapters in a batch: all take each batch in turn."""
    from scions.engine.batches import batches_by_length

    lengths = np.array([len(ids) for ids in encoder.tokenize_rows(texts)[0]])
    sides = list(itertools.product(RANKS, COUNTS))
    seconds = dict.fromkeys(sides, 0.0)
    for number, batch in enumerate(batches_by_length(lengths, ROWS)):
        some = [texts[row] for row in batch.tolist()]
        for place in range(len(sides)):
            rank, count = sides[(number + place) % len(sides)]
            adapter = [names[rank][row % count] for row in range(len(some))] if count else None
            start = time.perf_counter()
            encoder.encode(some, batch_size=ROWS, adapter=adapter)
            seconds[rank, count] += time.perf_counter() - start
    return {counted(*side, before): round(len(texts) / taken, 1) for side, taken in seconds.items()}


def counted(rank: int, count: int, before: str = "") -> str:
    return f"{before}64 rows, {count} of r={rank}"


def parent_sides(
    texts: list[str], ours: Mapping[str, Any], names: Mapping[int, Sequence[str]], peft: PeftPeers
) -> dict[str, Side]:
    """All sides but those without compiled kernels."""
    import torch
    from sentence_transformers import SentenceTransformer

    from scions.store import resolve_base

    def theirs(**options: Any) -> Side:
        model = SentenceTransformer(resolve_base(), device=str(ours[DEFAULT].device), **options)
        return Side(lambda: model.encode(texts, batch_size=32, show_progress_bar=False), len(texts))

    mixed = spread(ours[EXACT], texts, names[87])
    few = range(0, len(texts), PEER_STEP)
    return {
        FIRST: theirs(),
        BF16: theirs(model_kwargs={"dtype": torch.bfloat16}),
        **encoder_sides(texts, ours[DEFAULT], names),
        FLOAT: Side(lambda: ours[FLOAT].encode(texts), len(texts)),
        EXACT: Side(lambda: ours[EXACT].encode(texts), len(texts)),
        EXACT_MANY: Side(lambda: ours[EXACT].encode(texts, adapter=mixed), len(texts)),
        MIXED: Side(lambda: peft.mixed(range(len(texts))), len(texts)),
        SWAPPED: Side(lambda: peft.swapped(few), len(few)),
    }


def without_kernels(pipe: Any, texts: list[str], folder: Path, names: dict[int, list[str]]) -> None:
    """A process that measures a round each time it is asked."""
    os.environ["SCIONS_NATIVE"] = "0"
    from scions import DomainEncoder
    from scions.engine.kernels.build import kernels

    assert kernels() is None
    encoder = DomainEncoder()
    load(encoder, folder, names)
    sides = encoder_sides(texts, encoder, names)
    for side in sides.values():
        side.run()
    turns(texts, encoder, names)
    pipe.send(True)
    while pipe.recv():
        rates = {PLAIN + name: side.rate() for name, side in sides.items()}
        pipe.send(rates | turns(texts, encoder, names, PLAIN))


def agreement(
    texts: list[str],
    ours: Mapping[str, Any],
    names: Mapping[int, Sequence[str]],
    folder: Path,
    sides: Mapping[str, Side],
    peft: PeftPeers,
) -> dict[str, Any]:
    """How far vectors are from those of sentence-transformers in fp32, and from themselves in other batches."""
    from sentence_transformers import SentenceTransformer

    from scions.store import resolve_base

    encoder, exact = ours[DEFAULT], ours[EXACT]
    plain = sides[FIRST].run()
    adapted = SentenceTransformer(resolve_base(), device=str(encoder.device))
    adapted.load_adapter(str(folder / names[87][0]), adapter_name=names[87][0])
    mixed = spread(encoder, texts, names[87])
    many = sides[MANY].run()
    few = range(0, len(texts), PEER_STEP)
    bare = [None] * len(texts)
    return {
        "least_cosine_to_sentence_transformers_fp32": {
            **{name: least(sides[name].run(), plain) for name in (BF16, DEFAULT, FLOAT, EXACT)},
            ONE: least(sides[ONE].run(), adapted.encode(texts, show_progress_bar=False)),
        },
        "least_cosine_to_float32_with_the_same_adapters": {MANY: least(many, ours[FLOAT].encode(texts, adapter=mixed))},
        "mean_cosine_of_adapters_to_base": round(float(cosines(many, plain).mean()), 4),
        "least_cosine_between_batchings": {
            DEFAULT: min(itertools.starmap(least, itertools.combinations(batchings(encoder, texts, bare), 2))),
            MANY: min(itertools.starmap(least, itertools.combinations(batchings(encoder, texts, mixed), 2))),
        },
        "equal_in_all_batchings": {
            EXACT: same(batchings(exact, texts, bare)),
            EXACT_MANY: same(batchings(exact, texts, mixed)),
        },
        "peft_mixed_to_one_after_another_least_cosine": least(peft.mixed(few), peft.swapped(few)),
    }


def summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Median, least and most over the rounds: rows a second, and ratios within each round."""

    def span(values: Sequence[float]) -> dict[str, float]:
        found = {"median": statistics.median(values), "low": min(values), "high": max(values)}
        return {key: round(value, 4) for key, value in found.items()}

    beside = {EXACT: DEFAULT, EXACT_MANY: MANY}
    for before in ("", PLAIN):
        beside |= {before + ONE: before + DEFAULT, before + MANY: before + DEFAULT}
        beside |= {counted(r, c, before): counted(r, 0, before) for r in RANKS for c in COUNTS[1:]}
    found: dict[str, Any] = {}
    for name in rounds[0]:
        row: dict[str, Any] = {"rows_a_second": span([rates[name] for rates in rounds])}
        row["to_sentence_transformers_fp32"] = span([rates[name] / rates[FIRST] for rates in rounds])
        if name in beside:
            row |= {"beside": beside[name], "to_it": span([rates[name] / rates[beside[name]] for rates in rounds])}
        found[name] = row
    return found


def markdown(record: Mapping[str, Any]) -> str:
    """The tables of a record."""
    setting, found = record["setting"], record["summary"]
    machine, texts = setting["machine"], setting["texts"]

    def shown(span: Mapping[str, float], digits: int) -> str:
        return f"{span['median']:.{digits}f} ({span['low']:.{digits}f}-{span['high']:.{digits}f})"

    lines = [
        f"{texts['rows']} texts ({texts['source']}), {texts['mean_tokens']} tokens on average; {machine['processor']}, "
        f"{machine['torch_threads']} threads, {machine['device']}; DomainEncoder in {setting['computes_in']}, compiled "
        f"kernels: {'yes' if setting['compiled_kernels'] else 'no'}; LoRA of rank {record['peft_lora_rank']} at all "
        f"linear layers. Tokeniser included. Median (range) of {len(record['rounds'])} rounds.",
        "",
        "| side | rows/s | x sentence-transformers fp32 | beside | ratio to it |",
        "|---|---|---|---|---|",
    ]
    for name, row in found.items():
        if " rows, " not in name:
            beside = f"{row['beside']} | {shown(row['to_it'], 2)}" if "to_it" in row else "|"
            times = shown(row["to_sentence_transformers_fp32"], 2)
            lines.append(f"| {name} | {shown(row['rows_a_second'], 0)} | {times} | {beside} |")
    head = " | ".join(f"{count}, to none" for count in COUNTS[1:])
    lines += ["", f"| adapters in 64 rows | none, rows/s | {head} |", "|---|" + "---|" * len(COUNTS)]
    for before, rank in itertools.product(("", PLAIN), RANKS):
        if counted(rank, 0, before) in found:
            cells = [shown(found[counted(rank, 0, before)]["rows_a_second"], 0)]
            cells += [shown(found[counted(rank, count, before)]["to_it"], 3) for count in COUNTS[1:]]
            lines.append(f"| {before}r = {rank} | " + " | ".join(cells) + " |")
    lines += ["", "| vectors | |", "|---|---|"]
    for what, value in record.get("agreement", {}).items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        lines += [f"| {what.replace('_', ' ')}{': ' if name else ''}{name} | {one} |" for name, one in parts]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
