# Everything a newcomer needs: `make demo`, `make test`. Each does its own set-up.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)
STAMP := $(VENV)/.ready

.PHONY: setup demo test unit e2e check lint bench interop docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml scripts/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) scripts/setup.sh
	@touch $@

demo: setup
	@$(SUDO) BIN=$(BIN) scripts/demo.sh

test: setup
	@$(SUDO) $(BIN)/pytest tests --ignore=tests/interop

unit: setup
	@$(BIN)/pytest tests/unit -q

e2e: setup
	@$(SUDO) $(BIN)/pytest tests/e2e

lint: setup
	$(BIN)/ruff format --check src tests bench scripts
	$(BIN)/ruff check src tests bench scripts
	$(BIN)/lint-imports
	$(BIN)/mypy

check: lint test

bench: setup
	@$(SUDO) $(BIN)/python -m bench

interop: setup
	@$(SUDO) $(BIN)/pytest tests/interop

docs: setup
	@$(BIN)/python scripts/check_docs.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
