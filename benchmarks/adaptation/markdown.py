"""Format `summary.json` as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptation import speed
from adaptation.domains import DOMAINS

METHODS = ("base", "linear", "full", "houlsby", "pfeiffer", "lora", "upper")
NAMES = {"linear": "linear map", "full": "full fine-tuning", "upper": "houlsby, upper 3 layers"}
Row = dict[str, Any]


def _span(found: Row | None, sign: bool = False) -> str:
    if found is None:
        return ""
    plus = "+" if sign else ""
    return f"{found['value']:{plus}.2f} [{found['low']:{plus}.2f}, {found['high']:{plus}.2f}]"


def _plain(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["No cells yet.", ""]
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def markdown(summary: dict[str, Any]) -> str:
    """The tables of ``summary``, which `table.write` makes."""
    seen = {row["domain"] for row in summary["domains"] if row["likely_seen_by_base"]}
    shown = {domain: domain + " *" if domain in seen else domain for domain in DOMAINS}
    lines = ["# Domain adaptation", ""]
    lines += [
        "Written by `python benchmarks/domain_adaptation.py --stage table` from the cells in this folder. Scores x100 "
        "with 95 % bootstrap intervals; the gain is over the base on the same rows. Learning rates were chosen on dev "
        "with one seed: at least four with fewer rows, the best two again with all rows; test was scored once. `*`: "
        "the base has likely seen such data in its own training. Base and adapted models are scored by the same "
        "encoder in the same precision (bf16 where native), texts cut at 256 tokens. All methods share recipe, "
        "batches, precision and no dropout; only the learning rate differs. The linear map's setting and every "
        "training's best epoch were chosen on dev. Memory is the peak beyond the loaded base while training, scoring "
        "of dev included. Cells ran beside each other; how fast each method trains is measured apart, below.",
        "",
        "## Seed 0",
        "",
    ]
    lines += _lines(
        ("domain", "method", "metric", "score", "gain over base", "trained", "rank", "STS7", "rate", "rows",
         "memory MiB"),
        [
            (
                shown[row["domain"]], NAMES.get(row["method"], row["method"]), row["metric"], _span(row["score"]),
                _span(row.get("gain"), sign=True), f"{row['share']:.2%}", str(row["rank"] or ""), f"{row['sts7']:.2f}",
                row["learning_rate"] or "", str(row["training_rows"] or ""),
                _plain(row["peak_memory_mib"], 0),
            )
            for row in summary["rows"]
        ],
    )  # fmt: skip
    lines += ["## Further scores (they decide no mean)", ""]
    lines += _lines(
        ("domain", "method", "scores", "test rows without a text of train"),
        [(shown[row["domain"]], NAMES.get(row["method"], row["method"]), *_further(row)) for row in summary["rows"]],
    )
    lines += ["## Several seeds", ""]
    lines += _lines(
        ("domain", "method", "mean", "deviation", "scores", "STS7"),
        [
            (shown[row["domain"]], NAMES.get(row["method"], row["method"]), f"{row['mean']:.2f}",
             f"{row['deviation']:.2f}", ", ".join(f"{score:.2f}" for score in row["scores"]), f"{row['sts7']:.2f}")
            for row in summary["seeds"]
        ],
    )  # fmt: skip
    lines += ["## Mean over domains, seed 0", ""]
    lines += _lines(
        ("method", "score", "STS7", "domains"),
        [
            (
                NAMES.get(row["method"], row["method"]),
                f"{row['score']:.2f}",
                f"{row['sts7']:.2f}",
                ", ".join(row["domains"]),
            )
            for row in summary["means"]
        ],
    )
    lines += ["Differences of means; intervals from a two-level bootstrap (domains, then rows).", ""]
    lines += _lines(
        ("difference", "domains", "seed 0", "all seeds there are"),
        [
            (row["what"], str(len(row["domains"])), _span(row["mean_seed_0"], sign=True),
             _span(row["mean_all_seeds"], sign=True))
            for row in summary["comparisons"]
        ],
    )  # fmt: skip
    lines += _ratio_lines(summary["comparisons"])
    lines += ["## Speed and memory against sentence-transformers' own trainer", ""]
    lines += [f"- {side}: {what}" for side, what in speed.WHAT.items()] + [
        "",
        "Same rows, batch size and text length; medians over alternating rounds in fresh processes, ratios with their "
        "range. Steps alone after warm-up; tokenising beforehand counts in the second ratio.",
        "",
    ]
    lines += _lines(
        ("domain", "side", "pairs/s", "theirs", "ratio", "ratio with preparation", "memory MiB", "theirs", "ratio"),
        [
            (row["domain"], row["side"], f"{row['pairs_per_second']:.1f}",
             f"{row['pairs_per_second_sentence_transformers']:.1f}", _range(row["speed_ratio"]),
             _range(row["speed_with_preparation_ratio"]), f"{row['peak_memory_mib']:.0f}",
             f"{row['peak_memory_mib_sentence_transformers']:.0f}", _range(row["memory_ratio"]))
            for row in summary["speed"]
        ],
    )  # fmt: skip
    lines += ["## Rows", ""]
    lines += _lines(
        ("domain", "test rows", "distinct test texts", "of them in train", "rows removed from train or dev"),
        [
            (shown[row["domain"]], str(row["test_rows"]), str(row["test_texts"]), str(row["also_in_train"]),
             ", ".join(f"{name} {count}" for name, count in row["removed_rows"].items() if count) or "none")
            for row in summary["domains"]
        ],
    )  # fmt: skip
    lines += ["## Source and machine", ""]
    lines += [_source(row) for row in summary["provenance"]]
    return "\n".join(lines) + "\n"


def _further(row: Row) -> tuple[str, str]:
    scores = [f"{name} {value:.2f}" for name, value in row["other_scores"].items()]
    scores += [f"{name} {extra['score']:.2f} ({extra['rows']} rows)" for name, extra in row["extra"].items()]
    unseen = row.get("unseen")
    text = f"{unseen['score']:.2f} (base {unseen['base']:.2f}, {unseen['rows']} rows)" if unseen else ""
    return "; ".join(scores), text


def _ratio_lines(comparisons: Sequence[Row]) -> list[str]:
    ratio = next((row["ratio_to_full"] for row in comparisons if "ratio_to_full" in row), None)
    if ratio is None:
        return []
    parts = [f"{domain} {value:.2f}" for domain, value in ratio["by_domain"].items()]
    parts += [f"**mean {ratio['mean']:.2f}**"] if "mean" in ratio else []
    told = ", ".join(parts) or "none can be given"
    return [f"Houlsby's gain over that of full fine-tuning, where the latter's interval lies above 0: {told}.", ""]


def _range(ratio: Row) -> str:
    return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"


def _source(row: Row) -> str:
    machine, versions = row["machine"], row["versions"]
    changed = " with uncommitted changes" if row["uncommitted_changes"] else ""
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"- {row['cells']} cells: commit {(row['commit'] or 'unknown')[:12]}{changed} (source {row['source_sha256']}); "
        f"{machine['processor']}, {machine['cores']} cores, {machine['torch_threads']} threads, "
        f"{machine['instructions']}, native bf16 {machine['native_bf16']}; {libraries}"
    )
