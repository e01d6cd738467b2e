SHELL := bash

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.h2crop-ready
# Extra arguments of pytest: make test ARGS="tests/unit -k grid"
ARGS ?=

# Real sample data for tests/real and `make real`; tests/real is skipped where the folder does not exist.
H2CROP_SHARED ?= $(abspath ../shared)
export H2CROP_SHARED

.PHONY: help setup test lint types format real bench clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make the environment in .venv (again only when pyproject.toml or constraints.txt changed)

# pip pins the build backend by PIP_CONSTRAINT before version 25.3, by PIP_BUILD_CONSTRAINT since.
$(READY): export PIP_CONSTRAINT := constraints.txt
$(READY): export PIP_BUILD_CONSTRAINT := constraints.txt
$(READY): pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time takes some minutes"
	@start=$$SECONDS && \
	{ test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV); } && \
	$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
		-e '.[build,flows,train,dev]' && \
	touch $@ && \
	echo "Ready in $$((SECONDS - start)) s"

test: $(READY)  ## Run the tests
	$(VENV)/bin/pytest -n 2 --dist worksteal $(ARGS)

lint: $(READY)  ## Check style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(READY)  ## Check types
	$(VENV)/bin/mypy

format: $(READY)  ## Format the code, mend what ruff can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

real: $(READY)  ## Build and plot two small stores from real data in H2CROP_SHARED
	@test -d "$(H2CROP_SHARED)" || { echo "H2CROP_SHARED: there is no folder $(H2CROP_SHARED)" >&2; exit 1; }
	mkdir -p build/real
	set -e; for name in flanders_2018 potsdam_2022; do \
		$(VENV)/bin/h2crop build tests/real/recipes/$$name.yaml --out build/real/$$name; \
		$(VENV)/bin/h2crop inspect build/real/$$name --plot build/real/$$name.png; \
	done

bench: $(READY)  ## Run the benchmarks and write docs/benchmarks.md
	$(VENV)/bin/python tests/benchmarks/run_all.py

clean:  ## Remove what builds and tests leave behind, but not .venv
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
