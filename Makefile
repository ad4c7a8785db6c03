# make demo   a server on the embedded model answers for a picture
# make test   everything that CI runs
# make lint / format / proto / bench   the parts one needs while working

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRA ?= cpu

.PHONY: demo test lint format proto bench clean
.DEFAULT_GOAL := test

# The service alone: seconds to install, no torch.
$(VENV)/.service: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA)]'
	@touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA),training,dev]'
	@touch $@ $(VENV)/.service

demo: $(VENV)/.service
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev lint
	$(BIN)/coverage erase
	$(BIN)/pytest --cov --cov-report=term -n 2 --dist loadfile  # a file is one process's: its tests share servers

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.dev
	$(BIN)/python proto/generate.py

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.server

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
