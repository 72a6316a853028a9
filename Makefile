# Everything a person does with a checkout. Each target installs what it needs first; what is there already is left alone.

PYTHON ?= python3
PYTEST ?=

SETUP := $(PYTHON) -m setup
# PATH with the toolchains that the set-up found or installed.
TOOLS := . build/env.sh

.PHONY: help setup demo test lint bench soak uninstall

help:
	@echo 'make setup      install what Skerry needs; then .venv/bin/skerry works'
	@echo 'make demo       run the official SDK against a server of its own, and stop it again'
	@echo 'make test       run the tests of the first tier (PYTEST="…" passes arguments to pytest)'
	@echo 'make lint       ruff, mypy, import-linter, cargo fmt, clippy'
	@echo 'make bench      measure Skerry beside its alternatives (ONLY=egress or sandboxes: a part; WRITE=1: into docs/benchmarks.md)'
	@echo 'make soak       full sizes and long runs'
	@echo 'make uninstall  undo what setup did to this machine'

setup:
	@$(SETUP) install run

demo:
	@$(SETUP) install run
	@exec .venv/bin/python -m demo.run

test:
	@$(SETUP) install test
	@$(TOOLS) && cd guest && cargo test --locked --quiet --workspace
	@$(TOOLS) && exec .venv/bin/pytest -m 'not soak' $(PYTEST)

lint:
	@$(SETUP) install lint
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy src setup tests bench demo
	@.venv/bin/lint-imports --no-logo --no-cache
	@$(TOOLS) && cd guest && cargo fmt --all --check
	@$(TOOLS) && cd guest && cargo clippy --locked --quiet --workspace --all-targets -- -D warnings

bench:
	@$(SETUP) install bench
	@$(TOOLS) && exec .venv/bin/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(WRITE),--write)

soak:
	@$(SETUP) install test
	@$(TOOLS) && exec .venv/bin/pytest -m soak --timeout=3600 $(PYTEST)

uninstall:
	@$(SETUP) uninstall
