# `make` lists the targets. Each one makes .venv when it is missing; nothing is done twice.
PYTHON ?= python3
PROFILE ?= laptop
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV := $(VENV)/.dev
COMPILE := $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --quiet --custom-compile-command "make requirements"
# uv installs, as it takes a third of pip's time: that of this machine, or one that pip brings. Where it cannot, pip does.
# Both compile what they install: what a peer's source makes Python warn of is then said there, and fails no test.
UV = $(shell command -v uv || echo $(BIN)/uv)
install = { command -v $(UV) >/dev/null || $(BIN)/python -m pip install --quiet $$(grep ^uv== requirements-dev.txt); } \
	  && $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python $(1) || $(BIN)/python -m pip install --quiet $(1)

.DEFAULT_GOAL := help
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count())')

.PHONY: help env peers book pdf faces test lint format sync serve bench requirements clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

env: $(STAMP) ## make .venv with everything that reading, running and building the book needs

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version); Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@$(call install,--requirement requirements.txt --editable .)
	@touch $@

$(DEV): $(STAMP) requirements-dev.txt
	@$(call install,--requirement requirements-dev.txt)
	@touch $@

peers: $(DEV) ## add other people's quantizers and Hessians, to test and time ours against
	@$(call install,--requirement requirements-peers.txt)

book: $(STAMP) ## run the chapters that changed and build the book; PROFILE=path for other parameters
	$(BIN)/fairq book --profile $(PROFILE)

pdf: $(STAMP) ## build the book and print it as one PDF, which needs Chromium
	$(BIN)/fairq pdf --profile $(PROFILE)

faces: $(STAMP) ## train on your copy of UTKFace, for hours, and write what is shipped; DATA=path names it
	@test -n "$(DATA)" || { echo "DATA is empty; expected the path of your copy of UTKFace: make faces DATA=path"; exit 2; }
	$(BIN)/fairq sweep utkface_small --root "$(DATA)" --workers $(WORKERS)
	$(BIN)/fairq results write utkface_small --root "$(DATA)"

test: $(DEV) ## run every test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder

lint: $(DEV) ## style, types, layers, notebook pairs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/fairq sync --check

format: $(DEV) ## format code and notebooks in place
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/fairq sync

sync: $(STAMP) ## bring each notebook and its .py pair in step
	$(BIN)/fairq sync

serve: book ## build the book and open it
	$(BIN)/fairq serve

bench: $(DEV) ## time ours against others: one table, ratios in one run, kept in benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

requirements: $(DEV) ## resolve every requirements file anew, for Linux and macOS and every Python
	$(COMPILE) --extra peers --upgrade --output-file requirements-peers.txt
	$(COMPILE) --extra dev --constraint requirements-peers.txt --output-file requirements-dev.txt
	$(COMPILE) --extra book --constraint requirements-peers.txt --output-file requirements.txt

clean: ## remove what was built; trained networks stay in the store (`fairq where` names it)
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
