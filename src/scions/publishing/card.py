"""The model card of an adapter: what it is for, what it was measured to do, how to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from scions.evaluation.verdict import Verdict
from scions.publishing.plots import SCORES
from scions.store import Manifest


def adapter_card(manifest: Manifest, verdict: Verdict) -> str:
    """The text of ``README.md``, with the front matter the Hub reads."""
    front = {
        "base_model": manifest.base.id,
        "library_name": "peft",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "adapter", "scions", manifest.method],
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {manifest.name}", ""]
    lines += [f"A {manifest.method} adapter for `{manifest.base.id}`, trained with Scions on {_data(manifest)}.", ""]
    if manifest.query_side:
        lines += [
            "**Query-side**: only queries pass through it. Documents are embedded with the base alone, so an index "
            "of the base's serves on as it is.",
            "",
        ]
    lines += [f"**{verdict.summary}**", "", f"![base against adapter]({SCORES})", ""]
    lines += ["| held-out rows | base | adapter |", "|---|---|---|"]
    lines += [f"| {name} | {before} | {after} |" for name, before, after in verdict.metrics]
    lines += [f"| {name} ({verdict.metric}) | | {value} |" for name, value in verdict.baselines.items()]
    lines += ["", "Values x100 with 95 % bootstrap intervals.", ""]
    if verdict.reindexing is not None:
        lines += [*(f"- {sentence}" for sentence in verdict.reindexing.sentences), ""]
    lines += [_general(verdict), ""]
    lines += [
        f"- trained: {manifest.trainable_parameters:,} values, {manifest.trainable_share:.2%} of the base's parameters"
        + (f", rank {manifest.rank}" if manifest.rank else ""),
        f"- recipe: {', '.join(f'{k} {v}' for k, v in manifest.recipe.items() if k != 'reasons')}",
        f"- seed: {manifest.seed}; created {manifest.created}",
        *(f"- {note}" for note in manifest.data.notes),
        "",
        "## Use",
        "",
        "```python",
        *_usage(manifest),
        "```",
        "",
    ]
    return "\n".join(lines)


def _data(manifest: Manifest) -> str:
    rows = manifest.data.rows
    return f"{rows.get('train', 0):,} rows ({manifest.data.shape}) of `{manifest.data.source}`"


def _general(verdict: Verdict) -> str:
    if verdict.general is not None:
        before, after = verdict.general["before"]["value"], verdict.general["after"]["value"]
        return f"General set ({verdict.general['metric']}): {before:.2f} → {after:.2f}."
    if verdict.drift is not None:
        return (
            f"Drift: {verdict.drift:.2f} (Spearman x100 between the base's and the adapter's similarities of "
            "standard-library docstrings; 100 is no change). No general set was given."
        )
    return "Nothing general was measured."


def _usage(manifest: Manifest) -> list[str]:
    if manifest.method == "full":
        return [
            "from sentence_transformers import SentenceTransformer",
            "",
            f'model = SentenceTransformer("path/to/{manifest.name}")',
            f'model.encode_query(["some question"])  # documents: {manifest.base.id}'
            if manifest.query_side
            else 'model.encode(["some text"])',
        ]
    if manifest.query_side:
        return [
            "import scions",
            "",
            f'encoder = scions.DomainEncoder("{manifest.base.id}")',
            f'encoder.load_adapter("path/to/{manifest.name}")',
            f'encoder.encode_query(["some question"], adapter="{manifest.name}")',
            f'encoder.encode_document(["some text"], adapter="{manifest.name}")  # the base\'s own vectors',
        ]
    return [
        "import scions  # registers the adapter with PEFT",
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{manifest.base.id}")',
        f'model.load_adapter("path/to/{manifest.name}", adapter_name="{manifest.name}")',
        'model.encode(["some text"])',
    ]


def mixed_card(manifest: Manifest, what: str, facts: Sequence[str]) -> str:
    """The text of ``README.md``, with the front matter the Hub reads.

    Args:
        manifest: its own.
        what: how it was made, as one sentence.
        facts: what else there is to say, a line each.
    """
    front = {
        "base_model": manifest.base.id,
        "library_name": "peft",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "adapter", "scions", manifest.method],
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {manifest.name}", "", f"A {manifest.method} adapter for `{manifest.base.id}`: {what}", ""]
    summary = manifest.scores.get("summary")
    lines += [f"**{summary}**", ""] if isinstance(summary, str) else []
    lines += [f"- {fact}" for fact in facts]
    lines += ["", "## Use", "", "```python", "import scions", ""]
    lines += [f'encoder = scions.DomainEncoder("{manifest.base.id}")']
    lines += [f'encoder.load_adapter("path/to/{manifest.name}")']
    lines += [f'encoder.encode(["some text"], adapter="{manifest.name}")', "```", ""]
    return "\n".join(lines)
