# Two commands matter: `make demo` and `make test`. Both make what they need first.
# `make demo-syncdiff` is the demo with frames that are generated one after the other.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DATA ?=
OUTPUT ?= $(if $(DATA),runs/demo-own,runs/demo)
# Files of tests at once: whole flows wait for servers half of the time. Their files come first.
JOBS ?= 2

.PHONY: setup demo demo-syncdiff test test-long lint weights clean

setup: .venv/.installed .venv/.command

# The lock is complete, so nothing is resolved again: --no-deps keeps the windowless OpenCV
# that the lock names instead of the two that mediapipe and scenedetect would pull in.
# torch goes first with its own dependencies, since they differ by machine (CPU or CUDA).
.venv/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "Python 3.11 is needed, $(PYTHON) is another version: run make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@touch $@

# The command latentsync-flows, which runs what is in this folder.
.venv/.command: .venv/.installed pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: setup
	$(BIN)/python -m flows.demo --output "$(OUTPUT)" $(if $(DATA),--data "$(DATA)")

# The same with our variant of SyncDiff, from its own folder.
demo-syncdiff: setup
	$(BIN)/python -m flows.demo --recipe syncdiff-tiny --output "$(OUTPUT)-syncdiff" \
	  $(if $(DATA),--data "$(DATA)")

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy flows tasks models datasets tests benchmarks latentsync_flows.py build_backend.py

test: lint
	$(BIN)/python -m pytest -m "not long" -n $(JOBS) --dist loadfile --no-loadscope-reorder

# What takes minutes each and is beside the shorter tests of the same things.
test-long: setup
	$(BIN)/python -m pytest -m long

weights: setup
	$(BIN)/python -m tasks.weights

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
