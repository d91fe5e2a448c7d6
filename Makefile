# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; \
  echo python3)
VENV := .venv
BIN := $(VENV)/bin
OUT := out
DATASET := $(OUT)/spurbench-mini-1.0.0
PANEL := resnet_v1 resnet_v2 resnet_robust vit

.PHONY: help demo test test-browser test-slow test-faults check leaderboard bench assets clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "spurbench needs Python 3.11 or newer; say make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

# A stamp per set of dependencies, renewed when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[$*]'
	@touch $@

$(VENV)/.installed: pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable .
	@touch $@

demo: $(VENV)/.installed ## Build the embedded dataset, evaluate its panel, render the leaderboard
	$(BIN)/spurbench build --classes all --output $(DATASET)
	$(BIN)/spurbench eval $(PANEL:%=--model mini:%) --data $(DATASET) --output $(OUT)/results
	$(BIN)/spurbench leaderboard $(OUT)/results --output $(OUT)/leaderboard
	@echo
	@echo "Dataset:      $(DATASET)"
	@echo "Leaderboard:  $(OUT)/leaderboard/README.md"
	@echo "Load it:      $(BIN)/python -c 'from datasets import load_dataset; print(load_dataset(\"$(DATASET)\"))'"

test: $(VENV)/.installed-test ## Run the fast tests
	$(BIN)/python -m pytest -m "not slow"

test-browser: $(VENV)/.installed-test ## Test the leaderboard's page in a headless Chromium (Debian: chromium chromium-driver)
	$(BIN)/python -m pytest -m browser

test-slow: $(VENV)/.installed-test ## Run the slow tests
	$(BIN)/python -m pytest -m slow

test-faults: $(VENV)/.installed-test ## Kill commands, fill disks, feed bad input; print the counts
	PYTHONPATH=tests $(BIN)/python -m faults --output $(OUT)/faults

check: $(VENV)/.installed-dev ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

leaderboard: $(VENV)/.installed ## Publish the embedded dataset's leaderboard: train more classifiers, evaluate all, render leaderboards/
	$(BIN)/spurbench build --classes all --output $(DATASET)
	$(BIN)/python -m spurbench.mini.training.board --output $(OUT)/board-classifiers
	$(BIN)/spurbench eval $(PANEL:%=--model mini:%) $$(printf -- '--model %s ' $(OUT)/board-classifiers/*/) \
	  --data $(DATASET) --output $(OUT)/board-results
	$(BIN)/spurbench leaderboard build $(OUT)/board-results --data $(DATASET) --output leaderboards

bench: $(VENV)/.installed ## Measure speed and memory, and the error of the SFSL's shortcuts
	$(BIN)/python -m benchmarks.finetune $(BENCH)
	$(BIN)/python -m benchmarks.sfsl_error
	$(BIN)/python -m benchmarks.eval

assets: $(VENV)/.installed ## Train the embedded recipe's models from nothing (hours on two cores)
	$(BIN)/python -m spurbench.mini.training.assets

clean: ## Remove the environment and all output
	rm -rf $(VENV) $(OUT)
