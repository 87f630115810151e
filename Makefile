# `make demo` shows the whole method on synthetic faces; `make test` checks it; `make test-all` adds what is slow.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --durations=10
# Two processes; fixtures of a module are made once, as a file stays with one of them.
PARALLEL := $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder
# By itself, as it measures how fast the machine is.
TIMED := tests/integration/test_benchmark_runs.py

.PHONY: demo test test-all checks docs setup web clean

demo: .venv/installed
	$(BIN)/python scripts/demo.py

test: checks
	$(PARALLEL) -m "not slow"

test-all: checks
	DRAWS=100 $(PARALLEL) --ignore $(TIMED)
	$(PYTEST) $(TIMED)

checks: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: .venv/installed
	rm -rf docs/_build docs/api
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build
	@echo "open docs/_build/index.html"

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "engrec needs Python 3.11 or newer: make setup PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# What the browser computes with, for `scripts/try.py --export`; no script that npm brings is run.
web:
	npm ci --prefix engrec/use/page/web --ignore-scripts --no-audit --no-fund

clean:
	rm -rf .venv engrec/use/page/web/node_modules docs/_build docs/api .pytest_cache .ruff_cache .hypothesis .import_linter_cache
