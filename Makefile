# `make` lists the targets. Each one makes .venv when it is missing; nothing is done twice.
PYTHON ?= python3
PROFILE ?= laptop
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev --quiet --custom-compile-command "make requirements"

.DEFAULT_GOAL := help
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count())')

.PHONY: help env peers book pdf faces test lint format sync serve bench requirements clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

env: $(STAMP) ## make .venv with everything the book, the tests and the checks need

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version); Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

peers: $(STAMP) ## add other people's quantizers and Hessians, to test and time ours against
	$(BIN)/python -m pip install --quiet --requirement requirements-peers.txt

book: $(STAMP) ## run the chapters that changed and build the book; PROFILE=full for more seeds and images
	$(BIN)/fairq book --profile $(PROFILE)

pdf: $(STAMP) ## build the book and print it as one PDF, which needs Chromium
	$(BIN)/fairq pdf --profile $(PROFILE)

faces: $(STAMP) ## train on your copies of UTKFace and FairFace, for hours; DATA=path names their folder
	@test -n "$(DATA)" || { echo "DATA is empty; expected the folder of UTKFace and FairFace: make faces DATA=path"; exit 2; }
	$(BIN)/fairq sweep utkface gender fairface utkface48 fairface_encoders --root "$(DATA)" --workers $(WORKERS)
	$(BIN)/fairq results write utkface gender fairface utkface48 fairface_encoders --root "$(DATA)"

test: $(STAMP) ## run every test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

lint: $(STAMP) ## style, types, layers, notebook pairs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/fairq sync --check

format: $(STAMP) ## format code and notebooks in place
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/fairq sync

sync: $(STAMP) ## bring each notebook and its .py pair in step
	$(BIN)/fairq sync

serve: book ## build the book and open it
	$(BIN)/fairq serve

bench: $(STAMP) ## time ours against others: one table, ratios in one run
	$(BIN)/python -m benchmarks

requirements: $(STAMP) ## resolve requirements.txt anew, for Linux and macOS and every Python
	$(COMPILE) --extra peers --upgrade --output-file requirements-peers.txt
	$(COMPILE) --constraint requirements-peers.txt --output-file requirements.txt

clean: ## remove what was built; trained networks stay in the store (`fairq where` names it)
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
