# One word per chore; each sets up .venv by itself. Another interpreter: make PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What `make demo` draws and where it puts the picture.
DEMO_DIR ?= demo
DEMO_FLAGS ?= --preset demo --workers 2 --overwrite
# Where `make docs` puts its pages.
DOCS_DIR ?= site

# Benchmarks of minutes; those of quality take hours, and go on where they were stopped.
BENCHES = $(filter-out tests/bench/quality%.py tests/bench/policy_%.py tests/bench/features.py \
	tests/bench/%_drill.py tests/bench/fuzz.py tests/bench/gallery.py, $(wildcard tests/bench/*.py))
QUALITY_FLAGS ?= --jobs 2

# The tests' models are tiny: one thread per process is fastest, and ranks do not fight for cores.
# Files run side by side in as many processes; all tests marked `ray` in one of them, on one Ray.
# Bytecode is kept, whatever the environment says: a hundred processes would compile it again.
TEST_JOBS ?= 2
TEST_ENV := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} PYTHONDONTWRITEBYTECODE=
TEST_FLAGS := --numprocesses $(TEST_JOBS) --dist loadscope --no-loadscope-reorder
PYTEST := $(TEST_ENV) $(BIN)/pytest $(TEST_FLAGS)

.PHONY: install demo docs test test-all test-gpu coverage check format bench bench-quality clean

install: $(VENV)/.dev

demo: $(VENV)/.use
	mkdir -p $(DEMO_DIR)
	$(BIN)/frieze render $(DEMO_FLAGS) --out $(DEMO_DIR)/poster.zarr \
		--also $(DEMO_DIR)/poster.tif --also $(DEMO_DIR)/poster.png

# The site, for any web server or for file://; a warning or a link that leads nowhere ends it.
docs: $(VENV)/.docs
	PYTHONPATH=tests $(BIN)/python tests/documentation/build.py $(DOCS_DIR)

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.dev
	$(PYTEST)

# Lines and branches of the product that `make test` takes; COVERAGE_OF names files or folders of
# tests instead of all. Measured, they take about three times as long.
COVERAGE_OF ?=
coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	-$(TEST_ENV) $(BIN)/coverage run -m pytest $(TEST_FLAGS) -m "not slow" --timeout 3600 $(COVERAGE_OF)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --sort=cover

# On a machine with a GPU: kernels and renders on it, and every family held to diffusers.
test-gpu: $(VENV)/.dev
	FRIEZE_TEST_GPU=1 $(PYTEST) -m gpu
	FRIEZE_TEST_GPU=1 $(PYTEST) tests/renderer/families/test_contract.py

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=tests/typing $(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	set -e; for script in $(BENCHES); do echo "$$script"; PYTHONPATH=tests $(BIN)/python "$$script"; done

bench-quality: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/quality.py $(QUALITY_FLAGS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/quality_unet.py $(QUALITY_UNET_FLAGS)
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/quality_decoder.py $(QUALITY_DECODER_FLAGS)

clean:
	rm -rf $(VENV) $(DEMO_DIR) $(DOCS_DIR) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache \
		.hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: .python = the bare environment, .use = enough to draw, .docs = and to build the site,
# .dev = enough to work on Frieze.

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Frieze needs Python 3.11 or newer, which $(PYTHON) is not; \
	try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.use: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "Installing Frieze into $(VENV): once, a few minutes."
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "Installing Frieze and Sphinx into $(VENV): once, a few minutes."
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[docs]"
	@touch $(VENV)/.use $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.python
	@echo "Installing Frieze and its tools into $(VENV): once, a few minutes."
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[dev]"
	@touch $(VENV)/.use $@
