# hilcl: `make run` trains the example board, `make test` runs the tests. Both set up $(VENV) by themselves.
#
#   make test ARGS="-k network"     more arguments for the command
#   make PYTHON=python3.12 run      another Python, for a new $(VENV)
#   make VENV=../venv test          another place for the virtual environment

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
MYPY := ../bin/mypy --config-file "$(CURDIR)/pyproject.toml" --cache-dir ../mypy_cache
COMPILE := $(VENV)/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
    --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
CHECKED := $(wildcard tests benchmarks)
FOLDERS := hilcl drivers sim_backend calibration
# Folders are listed too: their time changes when a file in them goes away.
SOURCES := pyproject.toml $(wildcard LICENSE README.md) \
    $(shell find $(FOLDERS) -name __pycache__ -prune -o -print)

.PHONY: help run test bench lint format types imports audit lock setup clean

help:
	@echo "make run | test | bench | lint | format | types | imports | audit | lock | clean   (ARGS=... for more arguments)"

run: $(VENV)/project.stamp
	$(BIN)/hilcl run examples/iris.toml $(ARGS)

# The script, not `python -m pytest`: that would put the source folders in front of the installed package.
test: setup
	$(BIN)/pytest -n auto --dist worksteal $(ARGS)

bench: setup
	$(BIN)/python benchmarks/speed.py $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check $(ARGS)
	$(BIN)/ruff format --check $(ARGS)

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix $(ARGS)
	$(BIN)/ruff format $(ARGS)

# Run in a folder of its own, where `hilcl` can only be the installed package.
types: setup
	rm -rf $(VENV)/types && mkdir $(VENV)/types
	for folder in $(CHECKED); do ln -s "$(CURDIR)/$$folder" $(VENV)/types/$$folder; done
	cd $(VENV)/types && $(MYPY) -p hilcl
	cd $(VENV)/types && $(MYPY) $(CHECKED)

imports: setup
	cd $(VENV) && bin/lint-imports --config "$(CURDIR)/pyproject.toml" --no-cache --no-logo

# Asks the package index which of the locked versions have known vulnerabilities.
audit: $(VENV)/dev.stamp
	$(BIN)/pip-audit --requirement requirements-dev.lock --require-hashes --disable-pip --progress-spinner off $(ARGS)

setup: $(VENV)/dev.stamp $(VENV)/project.stamp

# `make lock ARGS=--upgrade` takes the newest versions; without it, versions change only where they must.
lock: $(VENV)/python.stamp
	$(BIN)/python -m venv $(VENV)/uv
	$(VENV)/uv/bin/python -m pip --disable-pip-version-check install --quiet uv
	$(COMPILE) --extra fast --extra build --output-file requirements.lock $(ARGS) pyproject.toml
	$(COMPILE) --all-extras --constraint requirements.lock --output-file requirements-dev.lock $(ARGS) pyproject.toml

clean:
	if [ -e $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(FOLDERS) $(CHECKED) -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/python.stamp:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "hilcl needs Python 3.11 or newer and found no '$(PYTHON)': install it, or name one with 'make PYTHON=...'." >&2; \
	    exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "hilcl needs Python 3.11 or newer and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): name a newer one with 'make PYTHON=...'." >&2; \
	    exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    package="python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"; \
	    if [ "$$(id -u)" = 0 ]; then as_root=""; else as_root="sudo"; fi; \
	    { command -v apt-get && { [ -z "$$as_root" ] || command -v sudo; }; } >/dev/null \
	    && $$as_root apt-get update \
	    && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$$package" \
	    && $(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "'$(PYTHON)' cannot make virtual environments: as root, run 'apt-get install $$package', then make again." >&2; \
	    exit 2; }; }
	if [ -e $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/lock.stamp: requirements.lock | $(VENV)/python.stamp
	@echo "Installing the locked packages into $(VENV), half a minute to a few minutes ..."
	$(PIP) install --quiet --require-hashes -r requirements.lock
	touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/lock.stamp
	@echo "Installing what tests and checks need ..."
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	touch $@

# A wheel is built and installed, as for any user. Old build files would leak deleted modules into it.
$(VENV)/project.stamp: $(VENV)/lock.stamp $(SOURCES)
	rm -rf build hilcl.egg-info
	$(PIP) install --quiet --no-deps --no-build-isolation --force-reinstall .
	rm -rf build hilcl.egg-info
	touch $@
