# Each target first sets up what it needs, packages of the system included: .ci/setup says what and how.
# PYTHON chooses the interpreter of a new .venv, PYTEST_ARGS and BENCH_ARGS go to pytest and the benchmarks.

PYTEST_ARGS ?=
BENCH_ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:  # the targets share .venv
.PHONY: help demo test test-full conformance bench lint style types venv clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*  ## /  make \1\t/p' Makefile | expand -t 18

demo:  ## watch meshfw keep rules in place, in a throw-away network namespace
	@bash .ci/setup run
	$(BIN)/meshfw demo

test:  ## run every test
	@bash .ci/setup test
	$(BIN)/python -m pytest -n 2 tests plugins $(PYTEST_ARGS)

test-full: export HYPOTHESIS_PROFILE = full
test-full: test  ## the same, with many more generated examples

conformance:  ## write CONFORMANCE.md: which laws every backend and source here holds
	@bash .ci/setup test
	$(BIN)/python -m pytest -n 2 -k "not Narrow" --meshfw-report CONFORMANCE.md tests/test_conformance_memory.py \
	  tests/test_source_laws.py tests/kernel/test_conformance_*.py $(wildcard plugins/*/tests/*_conformance*.py) $(wildcard plugins/*/tests/*_laws*.py)

bench:  ## measure processes, time and memory of each backend
	@bash .ci/setup bench
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

lint: style types  ## check style, formatting and types

style:
	@bash .ci/setup dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types:
	@bash .ci/setup dev
	$(BIN)/python -m mypy

venv:  ## make .venv with everything a developer needs
	@bash .ci/setup dev

clean:  ## remove what the other targets made
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . \( -name __pycache__ -o -name .ruff_cache \) -type d -prune -exec rm -rf {} +
