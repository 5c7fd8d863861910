"""Run the first Python example of README.md and put its output under it.

    python docs/run_example.py

The output is kept in benchmarks/results/readme_example.txt too, for the test that README shows it.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "benchmarks" / "results" / "readme_example.txt"
START, END = "<!-- output:start -->", "<!-- output:end -->"


def example(readme: str) -> str:
    """Return the source of the first Python block. Raises ValueError where there is none."""
    found = re.search(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError("README.md has no Python block")
    return found[1]


def updated(readme: str, printed: str) -> str:
    """Return ``readme`` with ``printed`` between the markers."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"README.md lacks {START} or {END}")
    block = f"```text\n{printed.rstrip()}\n```\n" if printed.strip() else ""
    return f"{before}{START}\n{block}{END}{after}"


def main() -> int:
    path = ROOT / "README.md"
    readme = path.read_text(encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example(readme), "README.md", "exec"), {"__name__": "__main__"})
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(printed.getvalue(), encoding="utf-8")
    path.write_text(updated(readme, printed.getvalue()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
