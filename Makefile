# Each target sets up what it needs in .venv; nothing has to be installed by hand but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find edgetune serve tune compress export benchmarks -name '*.py' -o -name '*.jinja')

.PHONY: demo test test-all lint bench clean

# torch first and by its exact version: left to itself pip may fetch gigabytes of CUDA libraries.
$(VENV)/dependencies: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[build,demo,dev]'
	touch $@

# The tests run on the installed package, as a user has it, and not on the folders of the checkout.
$(VENV)/installed: $(VENV)/dependencies $(SOURCES)
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall .
	rm -rf build
	touch $@

demo: $(VENV)/installed
	$(BIN)/edgetune build examples/demo.yaml
	$(BIN)/edgetune predict bundles/demo "where is my parcel" "you charged me twice!!"

test: lint
	$(BIN)/pytest -n 2 -m 'not gpu'

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd $(VENV) && bin/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache  # beside the checkout mypy sees half

# DATA is a folder with the public data sets; none is shipped.
bench: $(VENV)/installed
	$(BIN)/python -m edgetune.benchmarks.real_data --data $(DATA) --markdown docs/figures.md

clean:
	rm -rf build dist *.egg-info
