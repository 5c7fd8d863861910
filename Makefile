# Needs Python 3.10 or newer and make, nothing else. Another interpreter: make PYTHON=python3.12 demo
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# About five minutes on two cores.
DEMO_FLAGS ?= --limit 1500 --epochs 1

.DEFAULT_GOAL := help
.PHONY: help env demo test lint docs clean

help:
	@echo "make demo    train an adapter on the built-in corpus and see what it gains"
	@echo "make test    run the tests"
	@echo "make lint    ruff, mypy and import-linter"
	@echo "make docs    write what is generated: docs/cli.md, docs/openapi.json, the results in README.md"
	@echo "make env     install into $(VENV); the others do so by themselves"
	@echo "make clean   remove caches, build products and the demo's adapter; $(VENV) stays"

env: $(STAMP)

demo: $(STAMP)
	$(BIN)/scions train --data docstrings --name docstrings-demo --force --adapters demo-adapters $(DEMO_FLAGS)

test: $(STAMP)
	@$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_openapi.py
	$(BIN)/python benchmarks/readme_table.py

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[offline,serve,dev]'
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) was not found. Scions needs Python 3.10 or newer: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1). Scions needs Python 3.10 or newer:" \
			"make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) -m venv failed. On Debian and Ubuntu it comes with the package python3-venv." >&2; exit 1; }

clean:
	rm -rf demo-adapters build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +
