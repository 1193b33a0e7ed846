# beatd: `make run` tries it, `make test` and `make check` are what every change must pass.

.DEFAULT_GOAL := help
.PHONY: help run test test-all check soak chaos older bench docs lock release clean

VENV := .venv
BIN := $(VENV)/bin
LOCK := packaging/requirements.lock
# What the image installs, with the hashes of all platforms.
HASHED = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--constraint $(LOCK)
IMAGE_EXTRAS := calendars notify otel solar web
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint $(LOCK)

NOT_INSTALLED = { echo "The packages could not be installed; pip says why above. Without a network or behind a proxy, name an" \
	"index that can be reached: make PIP_INDEX_URL=https://… $(MAKECMDGOALS)" >&2; exit 1; }

# The first Python on PATH that is new enough; override with `make PYTHON=/path/to/python3.12 run`.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# With job control (set -m) Ctrl-C reaches beatd alone, not make: it stops in order, and make sees exit code 0.
run: $(VENV)/.installed-run ## store, daemon, worker and status page in this terminal, with the example schedule
	@if [ -t 0 ] && [ -t 1 ]; then set -m; fi; $(BIN)/beatd dev --config config/beat.toml --builtin command

# Most tests wait most of the time for servers and processes: four more at once than there are processors.
# Whole files go to one process, since tests of a file share servers; those that take longest begin first.
JOBS ?= $(shell $(BIN)/python -c 'import os; print((os.cpu_count() or 2) + 4)' 2>/dev/null || echo 6)
PARALLEL = -n $(JOBS) --dist loadfile --no-loadscope-reorder
LONGEST_FIRST = tests/packaging tests/chaos tests/acceptance tests/model tests/integration tests/unit

test: $(VENV)/.installed-dev ## the tests, in parallel, in some minutes; ARGS="-k name" for some
	$(BIN)/python -m pytest $(PARALLEL) $(LONGEST_FIRST) $(ARGS)

test-all: $(VENV)/.installed-dev ## also those that are slow, as CI runs them
	$(BIN)/python -m pytest --slow $(PARALLEL) $(LONGEST_FIRST) $(ARGS)

check: $(VENV)/.installed-dev ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.installed-dev ## the tests that take minutes to hours
	-@$(MAKE) --no-print-directory older
	$(BIN)/python -m pytest --slow --soak -m soak $(ARGS)

chaos: $(VENV)/.installed-dev ## break everything for five minutes, and count; ARGS="--seed 7" to replay
	$(BIN)/python -m tests.chaos $(ARGS)

older: $(VENV)/older/.installed ## Celery 4.4 and 5.2, each in an environment of its own, for tests that run them

bench: $(VENV)/.installed-bench ## measure beatd beside its peers into benchmarks/results; ARGS=--quick: in five minutes
	$(BIN)/python benchmarks/suite.py $(ARGS)

docs: $(VENV)/.installed-dev ## the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "Open build/site/index.html"

lock: $(VENV)/.installed-dev ## write the versions that are installed now into the lock
	@{ sed '/^#/!d' $(LOCK); $(BIN)/python -m pip freeze --exclude-editable --exclude beatd | LC_ALL=C sort -f; } > $(LOCK).new
	@mv $(LOCK).new $(LOCK)
	$(HASHED) pyproject.toml $(addprefix --extra ,$(IMAGE_EXTRAS)) --output-file packaging/docker/requirements.lock
	$(HASHED) packaging/docker/build.in --output-file packaging/docker/build.lock

release: $(VENV)/.installed-dev ## wheel, sdist and SBOM of the tag in dist/, built twice and compared
	@PATH=$(abspath $(BIN)):$$PATH packaging/release

clean: ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.installed-run: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "Installing beatd into $(VENV) ..."
	@$(PIP) --editable '.[embedded,solar,web]' || $(NOT_INSTALLED)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(LOCK) | $(BIN)/python
	@echo "Installing beatd and what its development needs into $(VENV) ..."
	@$(PIP) --editable '.[dev]' || $(NOT_INSTALLED)
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "Installing the peers that are measured beside beatd ..."
	@$(PIP) --editable '.[bench]'
	@touch $@

# Celery 4.4 runs on no Python after 3.11, and there needs one name that 3.11 removed. Only older versions of pip take it.
OLDER_LISTS := tests/data/celery/4.4.txt tests/data/celery/5.2.txt
OLDER_PYTHON ?= $(shell for python in $(BIN)/python python3.11 python3.10; do \
	$$python -c 'import sys; sys.exit(sys.version_info >= (3, 12))' 2>/dev/null && echo $$python && break; done)

$(VENV)/older/.installed: $(OLDER_LISTS) | $(BIN)/python
	@[ -n "$(OLDER_PYTHON)" ] || { \
		echo "Celery 4.4 needs Python 3.11. Name one with: make OLDER_PYTHON=/path/to/python3.11 older" >&2; exit 1; }
	@for list in $(OLDER_LISTS); do \
		folder=$(VENV)/older/$$(basename $$list .txt); echo "Installing $$(grep ^celery $$list) into $$folder ..."; \
		$(OLDER_PYTHON) -m venv --clear $$folder && $$folder/bin/python -m pip install --quiet 'pip==24.0' && \
		$$folder/bin/python -m pip install --quiet --no-deps --requirement $$list || $(NOT_INSTALLED); done
	@echo 'import inspect; inspect.__dict__.setdefault("formatargspec", None)' \
		> $$(echo $(VENV)/older/4.4/lib/python*/site-packages)/formatargspec.pth
	@touch $@

$(BIN)/python:
	@$(or $(PYTHON),python3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "beatd needs Python 3.11 or newer; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1)." >&2; \
		echo "Name another with: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "No virtual environment could be made with $(PYTHON); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
