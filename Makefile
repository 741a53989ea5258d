# Everything a developer runs. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
AGENTS ?= 500
STEPS ?= 60
UPGRADE ?=
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
# Written last by each set-up step, so that a second run finds nothing to do.
READY_RUN := $(VENV)/.ready-run
READY_DEV := $(VENV)/.ready-dev
READY_PYMDP := $(VENV)/.ready-pymdp
READY_BENCH := $(VENV)/.ready-bench

UV := infra/uv.sh
COMPILE := $(UV) pip compile $(UPGRADE) --quiet --universal --python-version 3.11 --generate-hashes --no-header
export PYTHON
export VIRTUAL_ENV := $(abspath $(VENV))

.PHONY: help run test check format bench bench-quick consistency servers setup setup-pymdp lock wheel clean distclean

help: ## List the targets
	@printf 'make <target> [ARGS="..."]\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@printf '\nVariables: PYTHON (3.11 or newer), AGENTS=$(AGENTS) STEPS=$(STEPS) (run), WORKERS=$(WORKERS) (test), ARGS (run, test, bench).\n'

run: $(READY_RUN) ## Set up, then run the demo: a swarm that infers, stored and checked end to end
	@$(BIN)/freeagentics-db demo --agents $(AGENTS) --steps $(STEPS) $(ARGS)

test: $(READY_DEV) ## Set up, then run the whole test suite on real servers
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(READY_DEV) ## Lint, format, types, import direction, migrations, lock files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy infra
	$(BIN)/mypy benchmarks
	$(BIN)/lint-imports
	$(BIN)/python infra/lint_migrations.py
	$(BIN)/python infra/check_locks.py

format: $(READY_DEV) ## Apply the formatter and the safe lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY_BENCH) ## Measure everything beside its limits; writes benchmarks/RESULTS.md, takes an hour
	@$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(READY_BENCH) ## The same in less than 3 minutes; fails where a ratio is under half of its target, or of what was reached
	@$(BIN)/python -m benchmarks --quick --gate $(ARGS)

consistency: $(READY_DEV) ## Let many processes write and read the same agents, then check everything that was answered
	@$(BIN)/python -m tests.consistency $(ARGS)

servers: ## Get the servers that no wheel carries: PostgreSQL 15, Redis, PgBouncer, InfluxDB 2
	@infra/servers.sh

setup: $(READY_DEV) ## Install everything for development into .venv

setup-pymdp: $(READY_PYMDP) ## Add pymdp and JAX (about 700 MB) for the pymdp example and its test

lock: ## Write the lock files again, keeping versions that fit (UPGRADE=--upgrade: the newest)
	$(COMPILE) --group setup -o requirements/uv.txt
	$(COMPILE) --group dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) --group package pyproject.toml -c requirements/dev.txt -o requirements/run.txt
	$(COMPILE) --group pymdp -c requirements/dev.txt -o requirements/pymdp.txt
	$(COMPILE) --group bench -c requirements/dev.txt -o requirements/bench.txt

wheel: $(READY_DEV) ## Build the wheel and the source distribution into dist/
	$(BIN)/python -m build --no-isolation --outdir dist

clean: ## Remove what builds, checks and tests left behind
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## The same, and the environments made by the set-up
	rm -rf $(VENV) .uv

$(BIN)/python:
	@python=$$(infra/find_python.sh "$$PYTHON") && \
	$(UV) venv --quiet --allow-existing --no-python-downloads --python "$$python" $(VENV)

$(READY_RUN): requirements/run.txt pyproject.toml | $(BIN)/python
	@echo 'Installing requirements/run.txt into $(VENV) ...'
	@$(UV) pip install --quiet --require-hashes -r requirements/run.txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(READY_DEV): requirements/dev.txt requirements/run.txt pyproject.toml | $(BIN)/python
	@echo 'Installing requirements/dev.txt into $(VENV) ...'
	@$(UV) pip sync --quiet --require-hashes requirements/dev.txt $(if $(wildcard $(READY_PYMDP)),requirements/pymdp.txt) \
		$(if $(wildcard $(READY_BENCH)),requirements/bench.txt)
	@$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(READY_RUN) $@

$(READY_BENCH): requirements/bench.txt $(READY_DEV)
	@echo 'Installing requirements/bench.txt into $(VENV) ...'
	@$(UV) pip install --quiet --require-hashes -r requirements/bench.txt
	@touch $@

$(READY_PYMDP): requirements/pymdp.txt $(READY_DEV)
	@echo 'Installing requirements/pymdp.txt into $(VENV) ...'
	@$(UV) pip install --quiet --require-hashes -r requirements/pymdp.txt
	@touch $@
