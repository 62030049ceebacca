# Everything runs in a virtual environment inside the checkout; nothing outside it is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SOURCES := pyproject.toml CMakeLists.txt $(shell find native -type f)

.PHONY: demo test lint bench clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.tested
	$(BIN)/python -m pytest --doctest-modules --doctest-glob='*.md' tests src/kullback docs README.md

lint: $(VENV)/.tested $(VENV)/.linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.tested $(VENV)/.benched
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Kullback needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

# Editable: Python files are used where they stand, the C++ module is rebuilt when its sources change.
$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	$(PIP) --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) --group test
	touch $@

$(VENV)/.linted: $(VENV)/.installed
	$(PIP) --group lint
	touch $@

$(VENV)/.benched: $(VENV)/.installed
	$(PIP) --group bench
	touch $@
