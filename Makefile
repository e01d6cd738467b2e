SHELL := bash

# The newest of these that runs and can make environments. A name is not enough: version managers have names for inactive
# versions, and Debian packages the requirements of `venv` separately.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c $(USABLE) >/dev/null 2>&1 && echo $$name && break; done)
USABLE := 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
VENV := .venv
READY := $(VENV)/.h2crop-ready
# Enough to simulate, build and inspect, without PyTorch, Prefect and the tools of development.
BUILD_READY := $(VENV)/.h2crop-build-ready
# Extra arguments of pytest: make test ARGS="tests/unit -k grid"
ARGS ?=

# Real sample data for tests/real and `make real`; tests/real is skipped where the folder does not exist.
H2CROP_SHARED ?= $(abspath ../shared)
export H2CROP_SHARED

DEMO := build/demo

# For make local-service: the folder of all its files, and the size of its region, small or demo.
FOLDER ?= build/service
SIZE ?= small

.PHONY: help demo demo-check setup test test-fast golden lint types format real bench local-service kill-sweep corruption-sweep mutants overfit published-models \
	infra-lint image-check clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY)  ## Make the environment in .venv (again only when pyproject.toml or constraints.txt changed)

# pip pins the build backend by PIP_CONSTRAINT before version 25.3, by PIP_BUILD_CONSTRAINT since.
$(READY) $(BUILD_READY): export PIP_CONSTRAINT := constraints.txt
$(READY) $(BUILD_READY): export PIP_BUILD_CONSTRAINT := constraints.txt
$(READY): pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time takes some minutes"
	@$(call install,build$(COMMA)flows$(COMMA)hdf5$(COMMA)train$(COMMA)dev,$(BUILD_READY))

$(BUILD_READY): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) what building needs; the first time takes a minute or two"
	@$(call install,build)

# If .venv or the Python it was made with is missing, the environment is made again, whatever the stamps are.
ifeq ($(shell test -x $(VENV)/bin/python && echo there),)
.PHONY: $(READY) $(BUILD_READY)
endif

NO_PYTHON := No Python 3.11, 3.12 or 3.13 with its module venv was found: install one (Debian, Ubuntu: apt install \
	python3 python3-venv; macOS: brew install python@3.13) or give its path: make PYTHON=/path/to/python
# $(call make-venv,INTERPRETER)
define make-venv
$(if $(1),$(1) -m venv --clear $(VENV),{ echo "$(NO_PYTHON)" >&2; exit 1; })
endef

COMMA := ,
# $(call install,EXTRAS[,OTHER STAMP])
define install
start=$$SECONDS && \
{ test -x $(VENV)/bin/python || $(call make-venv,$(PYTHON)); } && \
$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$(1)]' && \
touch $(2) $@ && \
echo "Ready in $$((SECONDS - start)) s"
endef

demo: $(BUILD_READY)  ## Simulate a region, build a store from it and inspect it (try this first)
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	@start=$$SECONDS && set -e && export PATH="$(abspath $(VENV))/bin:$$PATH" && \
	step() { echo; echo "\$$ $$*"; "$$@"; } && \
	step h2crop simulate $(DEMO)/region --season 2022 --shift 0,0 --shift 9,-6 && \
	step h2crop plan $(DEMO)/region/recipe.yaml --out $(DEMO)/plan && \
	step h2crop build $(DEMO)/plan --out $(DEMO)/store && \
	step h2crop inspect $(DEMO)/store --plot $(DEMO)/sample.png && \
	echo && echo "Simulated, planned, built and inspected in $$((SECONDS - start)) s." && \
	cat docs/demo.txt

test: $(READY)  ## Run all tests (half an hour; docs/testing.md)
	$(VENV)/bin/pytest -n 2 --dist worksteal $(ARGS)

test-fast: $(READY)  ## Run the unit tests but the slow ones (under a minute)
	$(VENV)/bin/pytest -n 2 --dist worksteal -m "not slow" --hypothesis-profile fast tests/unit $(ARGS)

lint: $(READY)  ## Check style, formatting and spelling
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/codespell

types: $(READY)  ## Check types
	$(VENV)/bin/mypy

format: $(READY)  ## Format the code, fix what ruff can fix
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

real: $(READY)  ## Build and plot two small stores from real data in H2CROP_SHARED
	@test -d "$(H2CROP_SHARED)" || { echo "H2CROP_SHARED: there is no folder $(H2CROP_SHARED)" >&2; exit 1; }
	mkdir -p build/real
	set -e; for name in flanders_2018 potsdam_2022; do \
		$(VENV)/bin/h2crop build tests/real/recipes/$$name.yaml --out build/real/$$name; \
		$(VENV)/bin/h2crop inspect build/real/$$name --plot build/real/$$name.png; \
	done

local-service: $(READY)  ## Run the whole service once on this machine, without containers: FOLDER=build/service SIZE=small
	PATH="$(abspath $(VENV))/bin:$$PATH" infra/local-service.sh $(FOLDER) --size $(SIZE)

kill-sweep: $(READY)  ## Kill a hundred builds, and every command beside readers; writes two pages in docs/ (15 minutes)
	$(VENV)/bin/python tests/sweeps/kill_builds.py
	$(VENV)/bin/python tests/sweeps/kill_commands.py --kills 12

# The number of places that are damaged.
CORRUPTIONS := 60

corruption-sweep: $(READY)  ## Damage sixty places of a store and see each found and named (some minutes)
	H2CROP_CORRUPTIONS=$(CORRUPTIONS) $(VENV)/bin/pytest -q -n 2 --dist worksteal tests/integration/test_corruption.py $(ARGS)

mutants: $(READY)  ## Change the code in small ways, write which no test notices (4 s each, 2,000 by default; a run that was stopped continues)
	$(VENV)/bin/python tests/sweeps/mutants.py $(ARGS)

overfit: $(READY)  ## Overfit the small model on four samples of the demo (make demo first; half an hour)
	$(VENV)/bin/python tests/sweeps/overfit.py $(DEMO)/store

published-models: $(READY)  ## Compare the published models at full size with an independent implementation (a quarter of an hour)
	PYTHONPATH=. $(VENV)/bin/python tests/sweeps/published_models.py

bench: $(READY)  ## Run the benchmarks and write docs/benchmarks.md
	$(VENV)/bin/python tests/benchmarks/run_all.py

golden: $(READY)  ## Rewrite tests/golden.json, after an intended change of output
	H2CROP_GOLDEN=write $(VENV)/bin/pytest -q tests/integration/test_golden.py

demo-check: $(READY)  ## Compare the demo's store (make demo) with the truth of its region
	H2CROP_DEMO=$(DEMO) $(VENV)/bin/pytest -q tests/integration/test_simulated_truth.py

# Linters of infra/, in a separate environment: programs installed as wheels, about 100 MB.
INFRA_TOOLS := build/infra-tools

$(INFRA_TOOLS)/.ready: infra/lint-requirements.txt
	@$(PYTHON) -m venv --clear $(INFRA_TOOLS)
	@$(INFRA_TOOLS)/bin/python -m pip install -qq --disable-pip-version-check -r infra/lint-requirements.txt
	@touch $@

infra-lint: $(INFRA_TOOLS)/.ready  ## Check the Dockerfile, the Compose file, shell scripts and the examples of CI
	PATH="$(abspath $(INFRA_TOOLS))/bin:$$PATH" infra/lint.sh

image-check: $(READY)  ## Run the Dockerfile and the service without a container engine (root; some minutes; 6 GB)
	@mkdir -p build
	$(VENV)/bin/python infra/image_check --report build/image-check.json

clean:  ## Remove what builds and tests leave behind, but not .venv
	rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
