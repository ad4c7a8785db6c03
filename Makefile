# make demo   a server on the embedded model answers for a picture
# make test   everything that CI runs under one Python; make pythons adds the other versions
# make lint / format / proto / bench   the parts one needs while working

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRA ?= cpu

.PHONY: demo test pythons lint format proto bench clean
.DEFAULT_GOAL := test

# pip warns of settings of the machine that nobody asked about here. What it says goes to a file, and to the screen where
# it fails.
define install
	@echo "Installing Anther with [$(EXTRAS)] into $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]' >$(VENV)/install.log 2>&1 \
		|| { cat $(VENV)/install.log >&2; exit 1; }
	@touch $@
endef

# The service alone: seconds to install, no torch.
$(VENV)/.service: EXTRAS = $(EXTRA)
$(VENV)/.service: pyproject.toml
	$(install)

$(VENV)/.dev: EXTRAS = $(EXTRA),training,dev
$(VENV)/.dev: pyproject.toml
	$(install)
	@touch $(VENV)/.service

demo: $(VENV)/.service
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev lint
	$(BIN)/coverage erase
	$(BIN)/pytest --cov --cov-report=term -n 3 --dist loadfile --no-loadscope-reorder  # a file is one process's: its tests share servers

pythons: $(VENV)/.dev
	@.ci/pythons $(BIN)/mypy

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
