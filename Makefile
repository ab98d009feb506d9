# Each target is what CI runs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install up test test-metal-gpu bench-metal lint docs docs-site lock names bench soak soak-metal fuzz clean shots

help:
	@echo "make install   create .venv and install the appliance"
	@echo "make up        install, then serve model-runner.yaml on 127.0.0.1:8000"
	@echo "make test      everything that CI runs: lint, unit tests, the real engine"
	@echo "make lint      ruff, mypy, import-linter, generated files"
	@echo "make docs      regenerate the schema and the reference"
	@echo "make docs-site the documentation as a site, in build/site; fails for a link that leads nowhere"
	@echo "make lock      pin again what the control process and its tests need"
	@echo "make names     ask Docker Hub and the Hugging Face hub for the names in migrations/models.yaml"
	@echo "make bench     the figures of docs/benchmarks.md"
	@echo "make shots     the pictures of docs/images; needs chromium"
	@echo "make test-metal-gpu what CI proves of the Metal plug-in, on this machine's GPU; PYTHON_WITH_CUDA= on Linux"
	@echo "make bench-metal the plug-in beside mlx_lm's server, random 4-bit weights of 8B parameters; SHAPE=, PYTHON_WITH_CUDA="
	@echo "make soak-metal ten minutes of clients that go away, against the Metal engine; DURATION="
	@echo "make soak      ten minutes of edits and dying engines under load, half an hour of every kind of client;"
	@echo "               DURATION=, GATEWAY_DURATION= (seconds), CLIENTS=, SEED="
	@echo "make fuzz      10,000 hostile inputs over real sockets, the seed printed; 100,000 mutated GGUF files; COUNT=, FILES=, SEED="

$(VENV)/.installed: pyproject.toml packaging/tested.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint packaging/tested.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint packaging/tested.txt --editable '.[dev]'
	touch $@

install: $(VENV)/.installed

up: install
	$(BIN)/appliance up

# Real engines use every core themselves, and share one where they can: one after the other.
test: $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -m "not engine and not gpu" --numprocesses auto
	$(BIN)/python -m pytest -m engine

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m appliance.config.reference --check
	$(BIN)/python -m appliance.cli.reference --check
	$(BIN)/python -m appliance.gateway.reference --check
	$(BIN)/python -m tools.lock --check
	$(BIN)/python -m tools.homebrew --check
	$(BIN)/python -m appliance.gateway.metrics_reference --check

DURATION ?= 600
CLIENTS ?= 64
SEED ?= 1
GATEWAY_DURATION ?= 1800
soak: $(VENV)/.installed-dev
	$(BIN)/appliance chaos --duration $(DURATION) --clients $(CLIENTS) --seed $(SEED)
	$(BIN)/python -m benchmarks.soak --duration $(GATEWAY_DURATION) --clients $(CLIENTS) --seed $(SEED)

COUNT ?= 10000
FILES ?= 100000
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz.run --count $(COUNT) $(if $(filter command line,$(origin SEED)),--seed $(SEED))
	$(BIN)/python -m tests.models.fuzz_gguf --files $(FILES) --seed $(SEED)
	$(BIN)/python -m pytest tests/models/test_faults.py

# On a Mac as it is; for CUDA, PYTHON_WITH_CUDA= names an interpreter with vLLM, mlx-lm and mlx-cuda-13.
test-metal-gpu: $(VENV)/.installed-dev
	$(if $(PYTHON_WITH_CUDA),METAL_TEST_PYTHON=$(PYTHON_WITH_CUDA)) $(BIN)/python -m pytest -m gpu tests/metal

SHAPE ?= 8b
bench-metal: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.metal --shape $(SHAPE) --prefix-words 1000 $(if $(PYTHON_WITH_CUDA),--python $(PYTHON_WITH_CUDA))

soak-metal: $(VENV)/.installed-dev
	METAL_ABORTS=$(DURATION) $(BIN)/python -m pytest -q tests/metal/test_served.py -k go_away

bench: $(VENV)/.installed-dev
	$(BIN)/appliance env install
	$(BIN)/appliance pull
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.reload
	$(BIN)/python -m benchmarks.gateway

docs: $(VENV)/.installed-dev
	$(BIN)/python -m appliance.config.reference --write
	$(BIN)/python -m appliance.cli.reference --write
	$(BIN)/python -m appliance.gateway.reference --write
	$(BIN)/python -m appliance.gateway.metrics_reference --write

docs-site: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock: $(VENV)/.installed-dev
	$(BIN)/python -m tools.lock
	$(BIN)/python -m tools.homebrew --write

# Needs the network, so it is no part of the tests: its file is collected by its own name alone.
names: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/migrate/catalogue_names.py

shots: $(VENV)/.installed-dev
	$(BIN)/python -m tools.screenshots

clean:
	rm -rf $(VENV) build dist
