# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-all lint generated bench clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Pretrain on built-in videos, probe the features, search with them; every report stays in runs/.
demo: $(READY)
	$(BIN)/selfsup pretrain temporal --data motion --run demo
	$(BIN)/selfsup probe --from demo --data motion --run demo-probe
	$(BIN)/selfsup retrieve --from demo --data motion --run demo-retrieve

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# What is derived from the code and committed; tests fail while it is out of date.
generated: $(READY)
	$(BIN)/python -m selfsup_cli.config.schema > presets/schema.json
	$(BIN)/python -m selfsup_cli.config.reference presets > docs/presets.md
	$(BIN)/python -m selfsup_cli.config.reference environment > docs/environment.md
	$(BIN)/python -m selfsup_cli.cli.completions_generate

bench: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
