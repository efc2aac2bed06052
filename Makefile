# Everything a developer or CI runs. Each target sets up what it needs, so `make quickstart` or `make test` is enough on a
# clean clone with Python (3.11 to 3.13), make and git. `make PYTHON=python3.13 test` chooses the interpreter.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# How much of the long runs `make soak` does: 1 is all of it, CI does a twentieth.
SOAK   ?= 1
# Options of `python -m benchmarks`.
BENCH  ?=
# How many processes run the tests: a number, or one per processor, at most eight. Servers and folders are each one's own.
WORKERS ?= logical
# With WHEEL=1 the tests run against the built wheel, unpacked here, and not against the checkout.
WHEEL  ?=
SITE   := build/site

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint format types docs notebooks wheel bench soak clean

help:  ## List the targets.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' | expand -t 12

# The stamp makes re-runs quick: pip runs again only after the dependencies changed.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"asknown needs Python 3.11 to 3.13, $(PYTHON) is {sys.version.split()[0]}; try: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(STAMP)  ## Make .venv with all that the targets below need.

quickstart: $(STAMP)  ## Run the worked example: a table on the terminal, a picture in build/quickstart.
	$(BIN)/asknown quickstart --into build/quickstart

ifdef WHEEL
test: export PYTHONPATH := $(CURDIR)/$(SITE)
test: export ASKNOWN_TEST_SITE := $(CURDIR)/$(SITE)
test: $(SITE)
endif
# Those of Spark share one cluster, and so one process; the others come last, so that their closing line is the last one.
test: $(STAMP)  ## Run the tests, among them the examples in the README and the docs.
	$(BIN)/pytest tests/spark
	$(BIN)/pytest --ignore tests/spark -n $(WORKERS) --maxprocesses 8 --dist worksteal

lint: $(STAMP)  ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## Apply what `make lint` would ask for, as far as ruff can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)  ## Check types (mypy strict).
	$(BIN)/mypy

docs: $(STAMP)  ## Build the documentation into build/docs; a broken link is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/docs

notebooks: $(STAMP)  ## Run the notebooks and store what they show; `make test` compares. The fifth needs the real data (ASKNOWN_SHARED).
	$(BIN)/python tests/notebook_runs.py

wheel: $(STAMP)  ## Build the wheel and the source archive into dist.
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist . > /dev/null
	@ls -l dist

# The wheel alone, unpacked: what `make test WHEEL=1` imports.
$(SITE): wheel
	rm -rf $(SITE)
	$(PIP) install --quiet --no-deps --target $(SITE) dist/*.whl

# timely-beliefs cannot share asknown's environment; benchmarks makes its own on first use.
bench: $(STAMP)  ## Compare with other tools, answers first; prints ratios, writes JSON. BENCH=--quick for two minutes.
	$(BIN)/python -m benchmarks $(BENCH)

soak: $(STAMP)  ## Run the long fault and parity tests at full count (SOAK=0.1 for a tenth).
	ASKNOWN_SOAK=$(SOAK) $(BIN)/pytest -m soak

clean:  ## Remove what was built; keeps .venv.
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find alignment ingestion serving tests benchmarks -name .environments -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
