# `make sweep` and `make test` take a fresh clone all the way; a second call reuses .venv.
PYTHON ?= python3
BIN := .venv/bin
ifndef RUN
RUN := runs/$(shell date +%Y%m%d-%H%M%S)
endif

.PHONY: sweep test test-slow test-all gpu lint clean
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --durations=15

sweep: .venv/ready
	$(BIN)/mixprof sweep --out $(RUN)
	$(BIN)/mixprof report $(RUN) --out $(RUN)/report

test: .venv/ready
	sh scripts/browser.sh
	$(PYTEST) -m "not slow"

test-slow: .venv/ready
	sh scripts/browser.sh
	$(PYTEST) -m slow

test-all: test test-slow

# What only a machine with an NVIDIA GPU can prove, into gpu_acceptance.json; elsewhere it says that nothing ran.
gpu: .venv/ready
	$(BIN)/python scripts/gpu_acceptance.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy scripts tests
	$(BIN)/lint-imports

.venv/ready: pyproject.toml constraints.txt scripts/setup.sh scripts/type_stubs.py
	PYTHON=$(PYTHON) sh scripts/setup.sh

clean:
	rm -rf .venv build *.egg-info
