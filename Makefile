# `make sweep` and `make test` take a fresh clone all the way; a second call reuses .venv.
PYTHON ?= python3
BIN := .venv/bin
ifndef RUN
RUN := runs/$(shell date +%Y%m%d-%H%M%S)
endif

.PHONY: sweep test test-slow test-all gpu lint clean
# A GPU is hidden from tests that are not about it; `make gpu` runs those that are.
PYTEST = CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n 3 --dist loadfile --durations=15

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

# What only a machine with an NVIDIA GPU can prove; elsewhere it says that nothing ran. A PYTHON that imports torch is used
# as it is (NVIDIA's containers, a node without a network): nothing is made or installed, and what is missing is named.
gpu:
	@python=$(PYTHON); $$python -c "import torch" 2>/dev/null || { $(MAKE) .venv/ready && python=$(BIN)/python; }; \
	$$python scripts/missing.py; PYTHONPATH=$(CURDIR)/src $$python scripts/gpu_acceptance.py $(GPU)

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
