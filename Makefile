# Every target makes the virtual environment it needs: on a fresh machine the command is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check lint bench test-slow test-browser clean

demo: $(READY)
	$(BIN)/awqscope demo

test: $(READY)
	$(BIN)/python -m pytest

check: lint test

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m examples.benchmarks.search
	$(BIN)/python -m examples.benchmarks.sweep
	$(BIN)/python -m examples.benchmarks.memory
	$(BIN)/python -m examples.benchmarks.repair
	$(BIN)/python -m examples.benchmarks.dashboard
	$(BIN)/python -m examples.benchmarks.gate

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-browser: $(READY)
	$(BIN)/python -m pytest -m browser

clean:
	rm -rf $(VENV) build dist *.egg-info

# torch first, by itself: a machine that offers a CPU build of the pinned version then keeps it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("awqscope needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
