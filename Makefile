# `make run` and `make test` are all a newcomer needs; `make help` lists the rest.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
MODEL_DIR ?= model/shipped
HOST ?= http://127.0.0.1:8000
RESULT ?= var/load.json
MINUTES ?= 10
CHAOS_RESULT ?= var/chaos.json
EQUALITY_ROWS ?= 200000
EQUALITY_REPORT ?= interviewer_guide/results/equality.json

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

BENCH_RESULT ?= var/bench.json

.PHONY: run test check train load bench chaos promises equality lock clean help

run: .venv/installed  ## start everything on this machine (no Docker) until Ctrl-C; data stays in var/
	@exec $(BIN)/fraud up

test: .venv/installed  ## run all tests against a real Redis and a real broker
	$(BIN)/pytest

check: .venv/installed  ## lint, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

train: .venv/installed  ## make the model that ships again, from the simulator, byte for byte
	$(BIN)/python -m model.train --out $(MODEL_DIR)

load: .venv/installed  ## 100 transactions a second for 60 s against the running stack; fails if the budget does not hold
	$(BIN)/locust -f loadtest/locustfile.py --headless --only-summary -u 64 -r 64 --host $(HOST) --result $(RESULT)

chaos: .venv/installed  ## kill points with fresh seeds for MINUTES=10, on a stack of its own; writes var/chaos.json
	$(BIN)/fraud chaos --minutes $(MINUTES) --report $(CHAOS_RESULT)

promises: .venv/installed  ## run the tests that prove P1 to P7 and write interviewer_guide/promises.md
	$(BIN)/python interviewer_guide/promises.py run

equality: .venv/installed  ## compare 200,000 rows of HANDBOOK_TABLE (else simulated) online and offline, half over each door
	EQUALITY_ROWS=$(EQUALITY_ROWS) EQUALITY_REPORT=$(EQUALITY_REPORT) $(BIN)/pytest tests/integration/promises/test_online_is_offline.py

bench: .venv/installed  ## what a decision costs, as ratios taken in one run (about 6 minutes); writes BENCH_RESULT=var/bench.json
	$(BIN)/python -m loadtest.bench.command --out $(BENCH_RESULT)

lock: .venv/installed  ## write requirements.lock from pyproject.toml
	$(BIN)/python .ci/lock

clean:  ## remove the environment, caches and the data under var/
	rm -rf .venv var dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -exec rm -rf {} +

help:  ## show this
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
