# Everything a person does here. `make run` and `make test` need a Debian or Ubuntu machine and nothing of ours.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help
help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.PHONY: run
run: ## serve over HTTPS with keys in SoftHSM, prove it works, say what to do next
	@scripts/run.sh

.PHONY: develop
develop:
	@scripts/bootstrap.sh develop

.PHONY: quick
quick: develop ## before each commit: the tests that start no server and no other program (about 2.5 minutes on 2 cores)
	@scripts/test.sh quick

.PHONY: test
test: develop ## the whole suite: unit, HSM, server, conformance, stress, and the built wheel (about 15 minutes)
	@scripts/test.sh

.PHONY: lint
lint: develop ## ruff, mypy (strict), import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: docs
docs: develop ## the documentation as a site, in site/
	@scripts/docs.sh

.PHONY: demo
demo: develop ## the whole path as a story: application, KMS, proxy, HSM, break-glass
	@$(BIN)/python demo/story.py

.PHONY: sequences
sequences: develop ## 10,000 random sequences of changes, crashes and node losses (25 minutes on 2 cores)
	@HOLDFAST_SEQUENCES=5000 $(BIN)/python -m pytest --numprocesses 2 tests/control/test_sequences.py

.PHONY: rotations
rotations: develop ## 24 rotations, one each 5 s, under 500 requests a second, with nodes that are killed (4.5 minutes)
	@HOLDFAST_ROTATIONS=24 $(BIN)/python -m pytest -s tests/stress/test_rotation.py -k no_good

.PHONY: bench
bench: develop ## the seven figures, all in one run (about 10 minutes)
	@bench/run.sh

.PHONY: fuzz
fuzz: develop ## every fuzz target for SECONDS each (default 60)
	@fuzz/run.sh $${SECONDS_EACH:-60}
