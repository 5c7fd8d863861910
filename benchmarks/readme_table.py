"""Puts the table of means from the committed results into README.md, between its two markers.

python benchmarks/readme_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("benchmarks/results/domain_adaptation/table.md")
HEADING = "## Mean over domains, seed 0"
START, END = "<!-- results:start -->", "<!-- results:end -->"


def section(results: Path) -> str:
    """What stands between the markers: the table with a link to its source, or where it will stand."""
    rows = _rows(results.read_text(encoding="utf-8")) if results.is_file() else []
    if not rows:
        return f"No figures yet: they will stand here, copied from `{RESULTS.as_posix()}`, once that file is committed."
    source = f"[{RESULTS.as_posix()}]({RESULTS.as_posix()})"
    told = f"Means over the domains named, scores x100. By domain, with intervals, further seeds and speed: {source}."
    return "\n".join([*rows, "", told])


def _rows(text: str) -> list[str]:
    """The first table under the heading."""
    _, found, after = text.partition(HEADING + "\n")
    rows: list[str] = []
    for line in after.splitlines() if found else []:
        if line.startswith("|"):
            rows.append(line)
        elif rows or line.startswith("#"):
            break
    return rows


def updated(readme: str, results: Path) -> str:
    """``readme`` with the section renewed. Raises ValueError where it lacks the markers."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"README.md lacks {START} or {END}")
    return f"{before}{START}\n{section(results)}\n{END}{after}"


def main() -> int:
    readme = ROOT / "README.md"
    readme.write_text(updated(readme.read_text(encoding="utf-8"), ROOT / RESULTS), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
