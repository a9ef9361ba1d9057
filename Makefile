# envsynth: `make demo` and `make test` do all the set-up on a fresh Linux machine with Python 3.11 or newer.
#
# PYTHON=python3.12   which interpreter makes the virtual environment
# VENV=.venv          where it goes
# COVERAGE=1          `make test` also measures branch coverage and fails below the threshold in pyproject.toml
# WHEELS=<folder or page>   an extra source of wheels for pip (`--find-links`), for machines without an index,
#                     and for a CPU build of torch; the index's own build may be gigabytes

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
WHEELS ?=
COVERAGE ?=
TOPIC ?= foundation
SECONDS ?= 3600
PIP_FLAGS = --disable-pip-version-check --quiet -c constraints.txt $(if $(WHEELS),--find-links $(WHEELS))
BIN = $(VENV)/bin

.PHONY: help demo test slow mutants lint types floors docs docs-check fuzz accept wheel clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python found. Install Python 3.11 or newer, or set PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -e ".[export,train]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.train
	$(BIN)/python -m pip install $(PIP_FLAGS) -e ".[dev]"
	@touch $@

demo: $(VENV)/.train ## install, then synthesize, audit, store, play, evaluate, export, train and report, offline on the CPU
	$(BIN)/envsynth demo --out demo

test: $(VENV)/.dev ## install (with torch), then the test suite (10 minutes at most on 2 cores)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not gpu and not network and not docs" \
		$(if $(COVERAGE),--cov --cov-report=term:skip-covered)

slow: $(VENV)/.dev ## tests that take longer, and the commands of the documentation
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "slow or docs"

mutants: $(VENV)/.dev ## plant known bugs in a copy, one at a time, and see the tests fail
	$(BIN)/python scripts/mutants.py --workers 2

lint: $(VENV)/.dev ## ruff and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.dev ## pyright
	$(BIN)/pyright --project pyproject.toml

floors: $(VENV)/.dev ## import-linter
	$(BIN)/lint-imports

docs: $(VENV)/.dev ## build the documentation into site/
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict --quiet

docs-check: $(VENV)/.dev ## generated pages are up to date and the site builds
	$(BIN)/python docs/generate.py --check
	$(BIN)/mkdocs build --strict --quiet

fuzz: $(VENV)/.dev ## fuzz the host's frame decoder for an hour, guided by coverage: make fuzz SECONDS=3600
	$(BIN)/python -m pip install $(PIP_FLAGS) --only-binary atheris -e ".[fuzz]"
	$(BIN)/python -m acceptance.jail_fuzz --seconds $(SECONDS)

accept: $(VENV)/.dev ## acceptance lines of a topic: make accept TOPIC=foundation
	$(BIN)/python -m acceptance $(TOPIC) $(if $(FAST),--fast)

wheel: $(VENV)/.dev ## build the wheel into dist/
	$(BIN)/python -m pip wheel $(PIP_FLAGS) --no-deps -w dist .

clean: ## remove what was built
	rm -rf $(VENV) dist site demo .pytest_cache .ruff_cache .hypothesis
