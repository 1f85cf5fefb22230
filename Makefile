# `make run` shows it, `make test` proves it, `make e2e` proves it against a real Tinker server.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.from-lock

.DEFAULT_GOAL := help
.PHONY: help run test e2e soak mutants bench bench-breaker bench-journal bench-metrics bench-startup bench-micro bench-coalesce bench-flat bench-instructions bench-lag pictures lock clean

help:
	@echo "make run      train a small model through the proxy (ONCE=1: and exit)"
	@echo "make test     lint, types, import rules, tests with coverage"
	@echo "make e2e      the same calls against SkyRL's Tinker server"
	@echo "make bench-micro, bench-coalesce (SKYRL=1), bench-flat, bench-lag, bench-startup: parts of a call, sharing, growth,"
	@echo "              how long the event loop is held up, start (WRITE=1)"
	@echo "make bench-instructions: how many instructions a call takes, on whatever machine (WRITE=1)"
	@echo "make soak     train through random faults (SECONDS=600, SEED=1, KILLS=1: and kill -9, WRITE=1: note the figures)"
	@echo "make mutants  change the breaker and the batcher line by line: do tests fail? (ANEW=1: all again)"
	@echo "make bench    compare with nginx, HAProxy, LiteLLM and others, 25 minutes (ROUNDS=5, SECONDS=3, WRITE=1: note the figures)"
	@echo "make lock     resolve the dependencies again (UPGRADE=1: to their newest versions)"

# The environment is exactly what was tested: versions and hashes from the lock file, this project on top.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; say make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY)
	@exec $(BIN)/tinkex-proxy demo $(if $(ONCE),--once)

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 4 --dist worksteal -m "not long"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='tinkex_proxy/core/*,tinkex_proxy/wire/*' --fail-under=100
	$(BIN)/coverage report --fail-under=95

e2e: $(READY)
	$(BIN)/python -m pytest tests/e2e -s -p no:cacheprovider -o faulthandler_timeout=0
	$(BIN)/python -m pytest -m long -p no:cacheprovider

soak: SECONDS ?= 600
soak: SEED ?= 1
soak: $(READY)
	$(BIN)/python -m tests.soak --seconds $(SECONDS) --seed $(SEED) $(if $(KILLS),--kills) $(if $(WRITE),--write)

# On a machine that does nothing else, if the figures are to be written down.
bench: ROUNDS ?= 5
bench: SECONDS ?= 3
bench: $(READY)
	$(BIN)/python -m tests.bench.compare --rounds $(ROUNDS) --seconds $(SECONDS) $(if $(WRITE),--write)

bench-journal: $(READY)
	$(BIN)/python -m tests.bench.journal

mutants: MINUTES ?= 30
mutants: $(READY)
	$(BIN)/python -m tests.mutation --minutes $(MINUTES) $(if $(ANEW),--anew)

# Not part of the checks: a shared machine's clock is no judge.
bench-breaker: $(READY)
	$(BIN)/python tests/bench/breaker.py
	$(BIN)/python -m tests.bench.rejection

bench-startup: $(READY)
	$(BIN)/python -m tests.bench.startup $(if $(WRITE),--write)

# One update of a metric, and all that is observed against nothing of it, in turns.
bench-metrics: $(READY)
	$(BIN)/python -m tests.bench.metrics

# Each part of a call by itself (WRITE=1 notes the figures in docs/performance.md, here and below).
bench-micro: $(READY)
	$(BIN)/python -m tests.bench.micro $(if $(WRITE),--write)

# What sharing requests gains, and what it costs who is alone (SKYRL=1: on SkyRL too).
bench-coalesce: $(READY)
	$(BIN)/python -m tests.bench.coalesce $(if $(SKYRL),--skyrl) $(if $(WRITE),--write)

# Whether a call costs the same with 1,000 lanes, and after 100,000 calls.
bench-flat: $(READY)
	$(BIN)/python -m tests.bench.flat $(if $(WRITE),--write)

# How many instructions a call takes: the same on a machine that others use, too.
bench-instructions: $(READY)
	$(BIN)/python -m tests.bench.instructions $(if $(WRITE),--write)

# How long the event loop is held up by bodies of 5 MB.
bench-lag: $(READY)
	$(BIN)/python -m tests.bench.lag $(if $(WRITE),--write)

# The pictures of docs/page.md, from a run of five minutes.
pictures: $(READY)
	$(BIN)/python -m tests.e2e.pictures

# Five locks of one resolution: development, the image, the image with the sandbox or with traces, and what builds the wheel.
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" build/lock/bin/pip-compile --quiet \
  --generate-hashes --allow-unsafe --strip-extras --no-emit-options --no-emit-index-url \
  --no-emit-find-links --no-emit-trusted-host $(if $(UPGRADE),--upgrade)

lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check pip-tools==7.6.2
	$(COMPILE) --extra sandbox --extra otel --extra dev -o requirements.lock pyproject.toml
	$(COMPILE) -c requirements.lock -o requirements-runtime.lock pyproject.toml
	$(COMPILE) -c requirements.lock --extra sandbox -o requirements-sandbox.lock pyproject.toml
	$(COMPILE) -c requirements.lock --extra otel -o requirements-otel.lock pyproject.toml
	$(COMPILE) -c requirements.lock --only-build-deps --build-deps-for wheel -o requirements-build.lock pyproject.toml

clean:
	rm -rf build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache mutants
