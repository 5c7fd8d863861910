"""Model card of an adapter: origin, scores and usage."""

from __future__ import annotations

import json
from collections.abc import Sequence

from scions.evaluation.verdict import Verdict
from scions.publishing.plots import SCORES
from scions.store import Manifest


def adapter_card(
    manifest: Manifest, verdict: Verdict | None = None, *, origin: str | None = None, facts: Sequence[str] = ()
) -> str:
    """Return the text of ``README.md``, with the front matter the Hub reads.

    Args:
        manifest: the adapter's.
        verdict: of a training, with its scores and costs; None: the manifest's summary, where it has one.
        origin: how an adapter was made of others, as one sentence; None: it was trained.
        facts: further facts, a line each.
    """
    front = {
        "base_model": manifest.base.id,
        "library_name": "peft",
        "pipeline_tag": "sentence-similarity",
        "tags": ["sentence-transformers", "adapter", "scions", manifest.method],
    }
    data = f"{manifest.data.rows.get('train', 0):,} rows ({manifest.data.shape}) of `{manifest.data.source}`"
    made = f", trained with Scions on {data}." if origin is None else f": {origin}"
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {manifest.name}", "", f"A {manifest.method} adapter for `{manifest.base.id}`{made}", ""]
    if manifest.query_side:
        lines += [
            "**Query-side**: only queries pass through it. Documents are embedded with the base alone, so an index "
            "of the base's vectors stays valid.",
            "",
        ]
    summary = manifest.scores.get("summary") if verdict is None else verdict.summary
    lines += [f"**{summary}**", ""] if isinstance(summary, str) else []
    if verdict is not None:
        lines += _scores(verdict)
        facts = [*_training(manifest), *facts]
    lines += [*(f"- {fact}" for fact in facts), "", "## Use", "", "```python", *_usage(manifest, origin), "```", ""]
    return "\n".join(lines)


def _scores(verdict: Verdict) -> list[str]:
    lines = [f"![base against adapter]({SCORES})", "", "| held-out rows | base | adapter |", "|---|---|---|"]
    lines += [f"| {name} | {before} | {after} |" for name, before, after in verdict.metrics]
    lines += [f"| {name} ({verdict.metric}) | | {value} |" for name, value in verdict.baselines.items()]
    lines += ["", "Values x100 with 95 % bootstrap intervals.", ""]
    if verdict.reindexing is not None:
        lines += [*(f"- {sentence}" for sentence in verdict.reindexing.sentences), ""]
    return [*lines, _general(verdict), ""]


def _training(manifest: Manifest) -> list[str]:
    rank = f", rank {manifest.rank}" if manifest.rank else ""
    trained = f"{manifest.trainable_parameters:,} values, {manifest.trainable_share:.2%} of the base's parameters"
    recipe = ", ".join(f"{name} {value}" for name, value in manifest.recipe.items() if name != "reasons")
    created = f"seed: {manifest.seed}; created {manifest.created}"
    return [f"trained: {trained}{rank}", f"recipe: {recipe}", created, *manifest.data.notes]


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


def _usage(manifest: Manifest, origin: str | None) -> list[str]:
    base, path, name = manifest.base.id, f"path/to/{manifest.name}", manifest.name
    if manifest.method == "full":
        return [
            "from sentence_transformers import SentenceTransformer",
            "",
            f'model = SentenceTransformer("{path}")',
            f'model.encode_query(["some question"])  # documents: {base}'
            if manifest.query_side
            else 'model.encode(["some text"])',
        ]
    if manifest.query_side or origin is not None:
        lines = ["import scions", "", f'encoder = scions.DomainEncoder("{base}")', f'encoder.load_adapter("{path}")']
        if not manifest.query_side:
            return [*lines, f'encoder.encode(["some text"], adapter="{name}")']
        return [
            *lines,
            f'encoder.encode_query(["some question"], adapter="{name}")',
            f'encoder.encode_document(["some text"], adapter="{name}")  # the base\'s own vectors',
        ]
    return [
        "import scions  # registers the adapter with PEFT",
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{base}")',
        f'model.load_adapter("{path}", adapter_name="{name}")',
        'model.encode(["some text"])',
    ]
