"""Put the table of means from the committed results into README.md, and draw it: python benchmarks/readme_table.py"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("benchmarks/results/domain_adaptation/table.md")
HEADING = "## Mean over domains, seed 0"
PICTURE = RESULTS.with_name("means.png")
START, END = "<!-- results:start -->", "<!-- results:end -->"


def section(results: Path) -> str:
    """Return the text between the markers: the table with a link to its source, if there is one."""
    rows = _rows(results.read_text(encoding="utf-8")) if results.is_file() else []
    if not rows:
        return f"No figures yet: they will stand here, copied from `{RESULTS.as_posix()}`, once that file is committed."
    source = f"[{RESULTS.as_posix()}]({RESULTS.as_posix()})"
    note = f"Means over the domains named, scores x100. By domain, with intervals, further seeds and speed: {source}."
    return "\n".join([*rows, "", note])


def _rows(text: str) -> list[str]:
    """Return the lines of the first table under the heading."""
    _, heading, after = text.partition(HEADING + "\n")
    rows: list[str] = []
    for line in after.splitlines() if heading else []:
        if line.startswith("|"):
            rows.append(line)
        elif rows or line.startswith("#"):
            break
    return rows


def updated(readme: str, results: Path) -> str:
    """Return ``readme`` with the section replaced. Raises ValueError where it lacks the markers."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"README.md lacks {START} or {END}")
    return f"{before}{START}\n{section(results)}\n{END}{after}"


def draw(rows: list[str], picture: Path) -> None:
    """Draw the score on the domains against STS7, a point a method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for row in rows[2:]:
        method, score, general = (cell.strip() for cell in row.strip("|").split("|")[:3])
        axes.scatter(float(general), float(score), marker="s" if method == "base" else "o", label=method)
    axes.set(xlabel="STS7: general similarity", ylabel="mean score on the domains")
    axes.legend(loc="lower left", fontsize=8)
    figure.savefig(picture, dpi=150, metadata={"Software": None})


def main() -> int:
    readme = ROOT / "README.md"
    readme.write_text(updated(readme.read_text(encoding="utf-8"), ROOT / RESULTS), encoding="utf-8")
    draw(_rows((ROOT / RESULTS).read_text(encoding="utf-8")), ROOT / PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
