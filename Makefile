# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test test-all lint bench clean

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
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
