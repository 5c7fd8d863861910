"""README and docs: the links, commands and names in them exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MADE_BY_MAKE = re.compile(r"^make ([a-z]+)", re.MULTILINE)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", _text(page), re.DOTALL | re.MULTILINE)


def _commands(page: Path) -> list[list[str]]:
    """The words of every `scions` command in a page's blocks, without comments."""
    lines = (line for block in _blocks(page, "(?:sh)?") for line in block.splitlines())
    return [line.split("#")[0].split() for line in lines if line.startswith("scions ")]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _text(page), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", _text(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name) if name else page
        assert found.exists(), target
        if anchor:
            assert anchor in _anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_no_place_of_one_machine(page):
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|opt|Users|var|mnt)/", _text(page))
    assert str(ROOT) not in _text(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    import typer

    from scions.cli.app import app

    group = typer.main.get_command(app)
    for command, *words in (words[1:] for words in _commands(page)):
        assert command in group.commands
        if "|" in words:
            words = words[: words.index("|")]
        known = {name for p in group.commands[command].params for name in (*p.opts, *p.secondary_opts)}
        used = {word for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known, f"scions {command}: {used - known}"


def test_there_are_commands_to_check():
    assert len(_commands(README)) >= 4
    assert {"demo", "test"} <= set(MADE_BY_MAKE.findall("\n".join(_blocks(README, "sh"))))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z]+):", _text(ROOT / "Makefile"), re.MULTILINE))
    assert set(MADE_BY_MAKE.findall("\n".join(_blocks(page, "sh")))) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_compile_and_import_what_exists(page):
    for block in _blocks(page, "python"):
        compile(block, page.name, "exec")
        for module, names in re.findall(r"^from (scions[\w.]*) import (.+)$", block, re.MULTILINE):
            for name in names.split(","):
                assert hasattr(importlib.import_module(module), name.strip())


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_names_of_the_package_exist(page):
    packages = {path.parent.name for path in (ROOT / "src" / "scions").glob("*/__init__.py")}
    for name in re.findall(r"\bscions\.([a-z]\w*(?:\.\w+)+)", _text(page)):
        package, *rest = name.split(".")
        if package in packages:
            found = importlib.import_module(f"scions.{package}")
            for part in rest:
                if not hasattr(found, part):
                    importlib.import_module(f"{found.__name__}.{part}")
                found = getattr(found, part)


def test_the_example_trains_as_the_demo_does():
    """One set of options, so that the output under the example is what `make demo` ends in."""
    flags = re.search(r"^DEMO_FLAGS \?= (.*)$", _text(ROOT / "Makefile"), re.MULTILINE)
    assert flags is not None
    block = _blocks(README, "python")[0]
    assert len(block.splitlines()) <= 10
    for name, value in re.findall(r"--([a-z-]+) (\S+)", flags[1]):
        assert f"{name.replace('-', '_')}={value}" in block


def test_the_printed_output_is_the_one_on_file():
    example = _load(ROOT / "docs" / "run_example.py")
    printed = example.OUTPUT.read_text(encoding="utf-8") if example.OUTPUT.is_file() else ""
    assert _text(README) == example.updated(_text(README), printed), "run: python docs/run_example.py"


def test_the_table_of_results_is_the_one_on_file():
    table = _load(ROOT / "benchmarks" / "readme_table.py")
    assert _text(README) == table.updated(_text(README), ROOT / table.RESULTS), "run: make docs"


def test_readme_table_takes_the_means_alone(tmp_path):
    table = _load(ROOT / "benchmarks" / "readme_table.py")
    rows = ["| method | score |", "|---|---|", "| base | 1.00 |"]
    results = tmp_path / "table.md"
    results.write_text("\n".join(["| other |", "", table.HEADING, "", *rows, "", "more", "| later |", ""]))
    readme = table.updated(f"before\n{table.START}\nold\n{table.END}\nafter", results)
    assert readme.startswith(f"before\n{table.START}\n" + "\n".join(rows) + "\n\n")
    assert readme.endswith(f"\n{table.END}\nafter")
    assert "later" not in readme
    assert "old" not in readme


def test_readme_table_finds_the_heading_the_benchmark_writes():
    heading = _load(ROOT / "benchmarks" / "readme_table.py").HEADING
    assert f'"{heading}"' in _text(ROOT / "benchmarks" / "adaptation" / "markdown.py")


def test_readme_table_says_where_figures_will_stand(tmp_path):
    table = _load(ROOT / "benchmarks" / "readme_table.py")
    assert "No figures yet" in table.section(tmp_path / "none.md")
    (tmp_path / "empty.md").write_text(f"{table.HEADING}\n\nNo cells yet.\n")
    assert "No figures yet" in table.section(tmp_path / "empty.md")


def test_data_page_names_shapes_and_columns_of_the_code():
    from scions.data.columns import _NAMES
    from scions.data.shapes import COLUMNS

    page = _text(ROOT / "docs" / "data.md")
    names = {name for tiers in _NAMES.values() for tier in tiers for name in tier}
    section = page.split("## Column names")[1].split("\n## ")[0]
    assert names == set(re.findall(r"`(\w+)`", section.split("|---|---|")[1].split("\n\n")[0]))
    for shape in COLUMNS:
        assert f"| `{shape.value}` |" in page
        assert f"| `{shape.value}` |" in _text(README)


def test_training_page_names_every_flag():
    import typer

    from scions.cli.app import app

    flags = {name for p in typer.main.get_command(app).commands["train"].params for name in p.opts}
    section = _text(ROOT / "docs" / "training.md").split("## Every flag")[1]
    assert flags == set(re.findall(r"`(--[a-z-]+)`", section))


def test_adapters_page_names_every_method():
    from scions.training.recipe import METHODS

    page = _text(ROOT / "docs" / "adapters.md")
    assert set(METHODS) == set(
        re.findall(r"^\| `(\w+)`(?: \(default\))? \|", page.split("## What is on disk")[0], re.M)
    )


def test_constraints_pin_every_dependency():
    import sys

    if sys.version_info < (3, 11):
        pytest.skip("tomllib")
    import tomllib

    project = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    pinned = {_plain(line.split("==")[0]) for line in _text(ROOT / "constraints.txt").splitlines() if "==" in line}
    assert {_plain(re.split(r"[<>=!~\[ ;]", one)[0]) for one in wanted} <= pinned


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
