# make repro   set everything up and run the whole pipeline (dvc repro) on the embedded domain
# make check   set everything up, then lint, type check and run the unit tests: two minutes
# make test    the same with all tests: ten minutes
# make mutants   plant COUNT=100 mistakes one by one (SEED=0) and print those that the unit tests miss
# make registry   show the registered models in the browser (PORT=5000)
# make services   Prefect's and MLflow's servers and a worker (PREFECT_PORT=4200 MLFLOW_PORT=5000); services-stop, services-status
# make deploy   bring prefect.yaml (schedules, flows) to the Prefect server in use
# make backup     databases, artifacts and parameters into one file (FILE=...); make restore FILE=... brings them back
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# DVC runs the stages with $SHELL and `python`: both must be the ones meant here, whatever the caller's are.
SHELL := /bin/sh
export SHELL
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
unexport PYTHONPATH PYTHONHOME

.PHONY: setup repro registry services services-stop services-status deploy backup restore check test coverage lint mutants
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: '$(PYTHON)' is missing or older than 3.11; name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(BIN)/python -c pass 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "error: $(PYTHON) cannot make virtual environments (on Debian: apt install python3-venv)"; exit 2; }
	@echo "Installing the tested set of packages into $(VENV); a few minutes, once."
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

repro: setup
	@$(BIN)/python -m pipelines.workspace prepare
	@$(BIN)/dvc repro
	@$(BIN)/python -m pipelines.workspace finish

PORT ?= 5000
registry: setup
	@$(BIN)/python -m pipelines.workspace registry $(PORT)

# A folder other than ./services: ARGAN_SERVICES. PostgreSQL: ARGAN_DATABASE_URL=postgresql://user:password@host:5432/
SERVICES := $(BIN)/python -m pipelines.services
services: setup
	@$(SERVICES) start $(if $(PREFECT_PORT),--prefect-port $(PREFECT_PORT)) $(if $(MLFLOW_PORT),--mlflow-port $(MLFLOW_PORT)) \
	  $(if $(POSTGRES_PORT),--postgres-port $(POSTGRES_PORT)) $(if $(GPUS),--gpus $(GPUS)) \
	  $(if $(PASSWORDS),$(if $(filter 0,$(PASSWORDS)),--no-passwords,--passwords)) $(if $(filter command,$(origin ALLOWED_HOSTS)),--allowed-hosts '$(ALLOWED_HOSTS)') \
	  $(if $(ARTIFACTS),--artifacts $(ARTIFACTS))

services-stop: setup
	@$(SERVICES) stop

services-status: setup
	@$(SERVICES) status

# To the server of `make services`, unless the environment names another
deploy: setup
	@e="$${ARGAN_SERVICES:-services}/env"; if [ -z "$$PREFECT_API_URL" ] && [ -f "$$e" ]; then . "$$(realpath "$$e")"; fi; \
	  $(BIN)/python -m pipelines.deploy

backup: setup
	@$(SERVICES) backup $(FILE) $(if $(CACHE),--cache) $(if $(KEEP),--keep $(KEEP))

restore: setup
	@$(SERVICES) restore $(FILE) $(if $(FORCE),--force)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

CORES := $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 4))')
check: lint
	$(BIN)/python -m pytest -n $(or $(JOBS),$(CORES)) --no-loadscope-reorder tests/unit

test: lint
	$(BIN)/python -m pytest -n $(or $(JOBS),$(CORES)) --no-loadscope-reorder

# What the unit tests reach. Apart from `make check`, for measuring slows every line of Python down.
coverage: setup
	COVERAGE_CORE=$(shell $(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
	  $(BIN)/python -m pytest -n $(or $(JOBS),$(CORES)) --no-loadscope-reorder --cov tests/unit

COUNT ?= 100
SEED ?= 0
mutants: setup
	@$(BIN)/python -m benchmarks.mutants --count $(COUNT) --seed $(SEED)
