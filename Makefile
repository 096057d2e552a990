# Everything sets itself up in .venv; see `make help`.
PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= 2
BIN := .venv/bin
# Floors 0 to 2 (tests/test_floors.py); coverage's * stays within one folder.
LOWER := src/throughmask/*.py,src/throughmask/media/*.py,src/throughmask/interop/*.py,src/throughmask/nn/*.py

.PHONY: help demo test fast lint clean core dev
.NOTPARALLEL:

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: core  ## make a picture with masks that move, and a video of both, in out/demo
	$(BIN)/throughmask demo --out out/demo --force

test: lint  ## all checks: format, lint, types, tests, coverage of the lower floors
	$(BIN)/pytest -n $(JOBS) --cov --cov-report=
	$(BIN)/coverage report
	@echo "Floors 0 to 2 alone, which must reach 95 %:"
	$(BIN)/coverage report --include='$(LOWER)' --fail-under=95 --format=total

fast: lint  ## the same without slow tests and coverage, under two minutes
# A thread for each worker, or they wait for each other; a worker that is done takes of another's tests.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist worksteal -m "not slow and not gpu and not weights"

lint: dev  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## remove the environment, caches and outputs
	rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*

core dev:
	@$(PYTHON) tools/setup.py $@ --torch-index "$(TORCH_INDEX)"
