# Everything runs in a virtual environment inside the checkout; nothing outside it is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Where scikit-build-core puts the compiled module depends on these; Python files are used where they stand.
BUILT_FROM := pyproject.toml CMakeLists.txt $(shell find native -type f) $(wildcard src/kullback/*/__init__.py)

.PHONY: demo test test-all test-torch lint bench sanitize sanitize-threads fuzz clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

# The tests of optional parts (torch, Triton) are skipped where those are not installed; test-all installs them.
test: $(VENV)/.group-test
	$(BIN)/python -m pytest -n auto -m "not slow" --doctest-modules --doctest-glob='*.md' tests src/kullback docs README.md

test-all: $(VENV)/.group-optional test

lint: $(VENV)/.group-test $(VENV)/.group-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The kernels' tests on a module of its own that is compiled with the address and undefined-behaviour sanitizers, or
# with the thread sanitizer. Any report fails.
sanitize: $(VENV)/.group-test
	$(BIN)/python tests/sanitize/run.py

sanitize-threads: $(VENV)/.group-test
	$(BIN)/python tests/sanitize/run.py thread

# A million random calls held to the reference; rewrites tests/fuzz/record.json.
fuzz: $(VENV)/.group-test
	$(BIN)/python tests/fuzz/fuzz_kernels.py --cases 1000000 --processes $$(getconf _NPROCESSORS_ONLN) --record

# The tests of the PyTorch part on another of its versions, beside the one that is installed: make test-torch TORCH=2.4.1.
# (Wheels for Linux bring CUDA's libraries: some gigabytes.)
test-torch: $(VENV)/.group-optional
	$(if $(TORCH),,$(error name the version: make test-torch TORCH=2.4.1))
	test -d build/torch-$(TORCH)/torch || \
		$(BIN)/python -m pip install --quiet --target build/torch-$(TORCH) torch==$(TORCH)
	PYTHONPATH=$(CURDIR)/build/torch-$(TORCH) $(BIN)/python -m pytest -n auto -m "not slow" tests/torch

# All benchmarks, or some: make bench ONLY="losses linear".
bench: $(VENV)/.rivals
	$(BIN)/python benchmarks/run.py $(ONLY)

clean:
	rm -rf $(VENV) build dist

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Kullback needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.installed: $(BIN)/python $(BUILT_FROM)
	$(PIP) --editable .
	touch $@

# adelie asks for NumPy 1 and works with NumPy 2.
$(VENV)/.rivals: $(VENV)/.group-bench
	$(PIP) --no-deps adelie
	touch $@

$(VENV)/.group-%: $(VENV)/.installed
	$(PIP) --group $*
	touch $@
