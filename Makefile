# Two commands do everything on a fresh Linux machine with Python 3.11 or uv (PYTHON=python3.12: all but the walkers):
#   make run    set up, train PPO and continual PPO on changing observations, draw the figure
#   make test   set up, formatter, linter, type checker, tests
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# uv where it is present: faster, and it fetches Python 3.11 itself where there is none.
UV := $(shell command -v uv 2>/dev/null)
# Without a GPU a plain torch would bring gigabytes of CUDA; where pip finds a CPU build by itself, that one is taken.
CPU_TORCH := https://download.pytorch.org/whl/cpu
ifneq ($(UV),)
INSTALL := $(UV) pip install --python $(BIN)/python --constraint constraints.txt
else
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
endif

.PHONY: help run demo test lint format docs clean
help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(VENV)/.rl ## set up, see PPO lose its plasticity and continual backprop keep it (under ten minutes)
	$(BIN)/python -m tools.train experiment=changing_cartpole method=ppo,continual_backprop_l2,l2,fresh 'seed=range(0,18)' -m

demo: $(VENV)/.rl ## set up, see plasticity lost and kept on permuted digits (half a minute)
	$(BIN)/python -m tools.train experiment=permuted_digits scale=demo

test: lint ## set up, check and test everything that is quick
	$(BIN)/python -m pytest -n 2 --durations=10

lint: $(VENV)/.dev ## formatter, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## build the documentation's site into site/
	$(BIN)/mkdocs build --strict

clean: ## forget the virtual environment and caches, keep the runs
	rm -rf $(VENV) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.rl: pyproject.toml constraints.txt
ifneq ($(UV),)
	@echo "Setting up $(VENV) with uv (once; a minute or two)"
	@test -x $(BIN)/python || $(UV) venv --python $(PYTHON:python%=%) $(VENV)
	@$(INSTALL) --torch-backend auto torch || echo "PyTorch's own index cannot be reached: taking torch from PyPI"
else
	@$(PYTHON) --version >/dev/null 2>&1 || { echo "$(PYTHON) is not there: install it or uv, or make PYTHON=python3.10 ..."; exit 1; }
	@echo "Setting up $(VENV) (once; a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if ! nvidia-smi >/dev/null 2>&1 && [ "$$(uname)" = Linux ] && \
	  $(INSTALL) --dry-run --no-deps --report - torch 2>/dev/null | grep '"url"' | grep -qv -e cpu -e file:; then \
	  echo "no GPU here: installing torch's CPU build"; $(INSTALL) --no-deps --index-url $(CPU_TORCH) torch || true; fi
endif
	@echo "installing torch, torchrl, pybullet and what they need"
	@$(INSTALL) --editable '.[rl]'
	@touch $@

$(VENV)/.dev: $(VENV)/.rl
	@echo "installing what the tests compare against"
	@$(INSTALL) --editable '.[dev]'
	@$(INSTALL) --no-deps timm # of torchvision, which has no CPU build everywhere, its models need nothing
	@touch $@
