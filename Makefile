# Every target uses a virtual environment of the repository. It needs Python 3.11 or newer, and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# For measurements: only the packages of the image. structlog, for example, imports further packages if it finds them.
LEAN   ?= .venv-lean
# For `make pictures` only.
PICTURES ?= .venv-pictures
# For `make mutants` only.
MUTANTS ?= .venv-mutants
# Tests wait for servers more than they compute, so more tests than cores run in parallel.
WORKERS ?= 8
# Each worker has a cluster of six servers in a namespace of its own.
E2E_WORKERS ?= 2

.PHONY: help demo test e2e lint docs bench pictures mutants lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:\t/' | expand -t 10

$(VENV)/ready: requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

$(LEAN)/ready: requirements.txt
	$(PYTHON) -m venv $(LEAN)
	$(LEAN)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(PICTURES)/ready: requirements-pictures.txt
	$(PYTHON) -m venv $(PICTURES)
	$(PICTURES)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-pictures.txt
	@touch $@

$(MUTANTS)/ready: requirements-mutants.txt
	$(PYTHON) -m venv $(MUTANTS)
	$(MUTANTS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-mutants.txt
	@touch $@

demo: $(VENV)/ready  ## form a real cluster of six servers on this machine, show it, and take it down again
	BOOTSTRAP_LOG=$${BOOTSTRAP_LOG:-console} $(BIN)/python -m bootstrap local --once

# Bytecode is compiled once, not by each of the hundreds of processes that the tests start.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/ready  ## all tests; tests that need a missing program are skipped and listed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

e2e: $(VENV)/ready  ## end-to-end tests on a real cluster: E2E_CONTEXT names its context, E2E_LOAD loads the image (see docs/development.md)
	@test -n "$(E2E_CONTEXT)" || { echo "E2E_CONTEXT names no context of your kubeconfig; the current one is never taken" >&2; exit 2; }
	$(BIN)/python -m pytest tests/e2e -n $(E2E_WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/ready  ## style, types, the layers of the code, the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

docs: $(VENV)/ready  ## write the table of settings in docs/configuration.md again
	$(BIN)/python -m tests.docs_configuration

bench: export BENCH_PYTHON = $(abspath $(LEAN)/bin/python)
bench: $(VENV)/ready $(LEAN)/ready  ## compare this program with redis-cli on the same servers; results go to docs/benchmarks
	$(BIN)/python -m tests.bench.forming --json docs/benchmarks/forming.json $(ARGS)
	$(BIN)/python -m tests.bench.healing --json docs/benchmarks/healing.json
	$(BIN)/python -m tests.bench.moving --json docs/benchmarks/moving.json
	$(BIN)/python -m tests.bench.importing --json docs/benchmarks/importing.json

pictures: $(PICTURES)/ready  ## draw docs/pictures anew: from the manifests, a run of the demo, and docs/benchmarks
	PYTHONPATH=docs $(PICTURES)/bin/python -m pictures $(ARGS)

# A survivor is tried again only if it is named or its function has changed; `rm -r mutants` starts anew.
mutants: export PATH := $(abspath $(MUTANTS)/bin):$(PATH)
mutants: export SIMULATION_SEEDS = 1
mutants: export RESIZE_SEEDS = 1
mutants: $(MUTANTS)/ready  ## change the planner and verify in thousands of ways: does a test notice? ARGS names mutants (long)
	$(MUTANTS)/bin/mutmut run $(ARGS)
	$(MUTANTS)/bin/python -m tests.mutants

lock:  ## resolve and lock the requirements again (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' -o requirements.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' --extra pictures -c requirements-dev.txt -o requirements-pictures.txt pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' --extra mutants -c requirements-dev.txt -o requirements-mutants.txt pyproject.toml

clean:  ## remove the virtual environment and the caches
	rm -rf $(VENV) $(LEAN) $(PICTURES) $(MUTANTS) mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
