"""The model card of an adapter that was made of others."""

from __future__ import annotations

import json
from collections.abc import Sequence

from scions.store import Manifest


def card(manifest: Manifest, what: str, facts: Sequence[str]) -> str:
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
