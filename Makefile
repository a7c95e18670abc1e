# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make demo   reconstructs two real portraits into outputs/demo
#   make test   runs every test; make quick those that one runs while working
# Each sets up .venv by itself and only once. `make PYTHON=/path/to/python3.12 test` picks an interpreter.

SHELL := /bin/bash
# The first interpreter that runs, is new enough, and can make virtual environments.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null \
	&& command -v $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: help setup demo quickstart quick test soak check docs format clean

help:
	@echo "make demo     reconstruct two portraits, by the encoder that comes along and by a fit (three minutes)"
	@echo "make quickstart  train a small encoder (about 20 minutes on 2 cores)"
	@echo "make quick    run the tests that compile little: what one runs while working (a minute and a half)"
	@echo "make test     run all tests (about 14 minutes on 2 cores)"
	@echo "make soak     a thousand damaged files for each reader, fifty kills of each command (docs/reliability.md)"
	@echo "make check    linter, formatter and type checker"
	@echo "make docs     documentation in docs/_build/html (about a minute)"
	@echo "make setup    only install into .venv"
	@echo "make format   rewrite the code in the project's format"
	@echo "make clean    remove .venv and caches (outputs/ stays)"

setup: $(READY)

# constraints.txt pins what was tested.
$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11, 3.12, 3.13 or 3.14 with venv found; install it (Debian and Ubuntu: python3.11 python3.11-venv) or name one: make PYTHON=/path/to/python3.12" >&2; exit 2; fi
	@echo "Installing into $(VENV) with $(PYTHON): about 1.6 GB, a few minutes."
	@test -x $(RUN) || "$(PYTHON)" -m venv $(VENV)
	@$(RUN) -m pip install --quiet --upgrade pip
	@$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	@touch $(READY)

demo: $(READY)
	$(RUN) -m jaxface.demo --out outputs/demo

quickstart: $(READY)
	$(RUN) -m jaxface.train --config configs/quickstart.py

# A file runs in one worker, so that what it sets up is made once; tests/conftest.py says which files begin.
PYTEST = $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(READY)
	$(PYTEST) -m "not slow"

test: $(READY)
	$(PYTEST)

soak: $(READY)
	PYTHONPATH=.:tests $(RUN) tests/toys/hostile.py 1000
	PYTHONPATH=.:tests $(RUN) tests/toys/kills.py 50

check: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# An undocumented public name is an error, as is every warning.
docs: $(READY)
	@$(RUN) -c 'import furo, myst_parser' 2>/dev/null || $(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(RUN) -m sphinx -W --keep-going --jobs 2 -b html docs docs/_build/html

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info docs/_build docs/api
