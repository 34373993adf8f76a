# Every target makes the virtual environment it needs: on a fresh machine the command is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TARGETS := .venv-targets

.PHONY: demo test check lint bench test-slow test-browser test-targets clean

demo: $(READY)
	$(BIN)/awqscope demo

# A test process a core, each with one thread: models this small gain nothing from more.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: lint test

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m examples.benchmarks.search
	$(BIN)/python -m examples.benchmarks.sweep
	$(BIN)/python -m examples.benchmarks.memory
	OMP_NUM_THREADS=1 $(BIN)/python -m examples.benchmarks.workers
	$(BIN)/python -m examples.benchmarks.repair
	$(BIN)/python -m examples.benchmarks.dashboard
	$(BIN)/python -m examples.benchmarks.recipes
	$(BIN)/python -m examples.benchmarks.gate

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-browser: $(READY)
	$(BIN)/python -m pytest -m browser

test-targets: $(TARGETS)/.ready
	$(TARGETS)/bin/python -m pytest -m targets

clean:
	rm -rf $(VENV) $(TARGETS) build dist *.egg-info

# torch first, by itself: a machine that offers a CPU build of the pinned version then keeps it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("awqscope needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# Without dependencies: each tool would bring another torch and transformers. The list is whole.
$(TARGETS)/.ready: pyproject.toml constraints.txt constraints-targets.txt
	$(PYTHON) -m venv $(TARGETS)
	$(TARGETS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(TARGETS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(TARGETS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-targets.txt
	touch $@
