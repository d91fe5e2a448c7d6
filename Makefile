# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; \
  echo python3)
VENV := .venv
BIN := $(VENV)/bin
ROBUSTBENCH := .venv-robustbench
OUT := out
DATASET := $(OUT)/spurbench-mini-2.0.0
WORLD ?= 0
PANEL := resnet_v1 resnet_v2 resnet_robust vit
LOOP := $(OUT)/loop

# Bytecode is compiled once, here: where it can't be written later, every start would compile it anew.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode

.PHONY: help demo report loop test test-browser test-slurm test-robustbench test-slow test-faults mutants check docs leaderboard bench bench-growth bench-scale bench-gpu assets clean

help: ## List the targets
	@grep -E '^[A-Za-z0-9_-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "spurbench needs Python 3.11 or newer; say make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

# A stamp per set of dependencies, renewed when pyproject.toml changes.
$(VENV)/.installed: pyproject.toml | $(BIN)/uv
	$(INSTALL) --python $(BIN)/python --editable .
	@$(BIN)/python -m compileall -q spurbench
	@touch $@

$(VENV)/.installed-%: pyproject.toml $(VENV)/.installed
	$(INSTALL) --python $(BIN)/python --editable '.[$*]'
	@touch $@

$(ROBUSTBENCH)/.installed: pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(ROBUSTBENCH)
	$(INSTALL) --python $(ROBUSTBENCH)/bin/python --editable '.[robustbench,test]'
	@touch $@

demo: $(VENV)/.installed ## Build the embedded dataset, evaluate its panel, render the leaderboard
	$(BIN)/spurbench build --classes all --output $(DATASET)
	$(BIN)/spurbench eval $(PANEL:%=--model mini:%) --data $(DATASET) --output $(OUT)/results
	$(BIN)/spurbench leaderboard $(OUT)/results --output $(OUT)/leaderboard
	@echo
	@echo "Dataset:      $(DATASET)"
	@echo "Leaderboard:  $(OUT)/leaderboard/README.md"
	@echo "Load it:      $(BIN)/python -c 'from datasets import load_dataset; print(load_dataset(\"$(DATASET)\"))'"

report: $(VENV)/.installed ## The paper's tables and figures for the embedded dataset, with its contexts: docs/report.md
	$(BIN)/spurbench build --classes all --output $(OUT)/contexts --set 'contexts.phrases=["on the beach", "on Mount Fuji", "in a garden", "in a market"]'
	$(BIN)/spurbench eval $(PANEL:%=--model mini:%) --data $(OUT)/contexts --output $(OUT)/contexts-results
	$(BIN)/spurbench probe $(OUT)/contexts $(PANEL:%=--model mini:%) --output $(OUT)/probe
	$(BIN)/spurbench report $(OUT)/contexts --results $(OUT)/contexts-results --probe $(OUT)/probe/probe.json --images 3 --output $(OUT)/report

loop: $(VENV)/.installed ## From biased training scenes to a dataset, and mended by it: docs/loop.md
	$(BIN)/spurbench mini training $(LOOP)/training --images 300
	$(BIN)/spurbench mini training $(LOOP)/pool --images 6000 --classes valley --seed 1
	$(BIN)/spurbench discover --model mini:resnet_robust --images $(LOOP)/training --components 5 --top 40 --output $(LOOP)/discovery
	$(BIN)/spurbench mini supervise $(LOOP)/discovery
	$(BIN)/spurbench discover export $(LOOP)/discovery $(LOOP)/recipe --pool $(LOOP)/pool --candidates 200 --extends mini $(PANEL:%=--confirm mini:%)
	$(BIN)/spurbench build --recipe $(LOOP)/recipe --classes all --output $(LOOP)/dataset
	$(BIN)/spurbench eval $(PANEL:%=--model mini:%) --data $(LOOP)/dataset --output $(LOOP)/results
	$(BIN)/spurbench mend --model mini:resnet_v1 --method last-layer --images $(LOOP)/training --spurious $(LOOP)/dataset --output $(LOOP)/last-layer
	$(BIN)/spurbench mend --model mini:resnet_v1 --method fine-tune --images $(LOOP)/training --spurious $(LOOP)/dataset --output $(LOOP)/fine-tune
	$(BIN)/spurbench mini positives $(LOOP)/positives
	$(BIN)/spurbench eval --model mini:resnet_v1 --model $(LOOP)/last-layer --model $(LOOP)/fine-tune \
	  --data builders/mini/assets/real --positives $(LOOP)/positives --output $(LOOP)/mended
	$(BIN)/spurbench compare $(LOOP)/mended/*resnet_v1*.json $(LOOP)/mended/*last-layer*.json --output $(LOOP)/compared/last-layer
	$(BIN)/spurbench compare $(LOOP)/mended/*resnet_v1*.json $(LOOP)/mended/*fine-tune*.json --output $(LOOP)/compared/fine-tune

test: $(VENV)/.installed-test ## Run the fast tests
	$(BIN)/python -m pytest -m "not slow and not slurm" --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-browser: $(VENV)/.installed-test ## Test the leaderboard's, the survey's and discover's pages in a headless Chromium (Debian: chromium chromium-driver)
	$(BIN)/python -m pytest -m browser

test-slurm: $(VENV)/.installed-test ## Kill jobs, nodes and leads of a Slurm cluster on this machine (Debian: munge slurmctld slurmd slurm-client)
	PYTHONPATH=tests $(BIN)/python -m makers.slurm_cluster
	$(BIN)/python -m pytest -m slurm

test-robustbench: $(ROBUSTBENCH)/.installed ## Test what depends on robustbench and the packages that it pins, in an environment of their own
	$(ROBUSTBENCH)/bin/python -m pytest -m "robustbench and not slow"

test-slow: $(VENV)/.installed-test ## Run the slow tests
	$(BIN)/python -m pytest -m slow

test-faults: $(VENV)/.installed-test ## Kill commands, fill disks, feed bad input; print the counts
	PYTHONPATH=tests $(BIN)/python -m faults --output $(OUT)/faults $(FAULTS)

mutants: $(VENV)/.installed-mutants ## Run 300 wrong programs against the tests (about an hour); arguments in MUTANTS
	PYTHONPATH=tests $(BIN)/python -m mutants $(MUTANTS)

check: $(VENV)/.installed-dev ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs ## Make the documentation's site in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

leaderboard: $(VENV)/.installed ## Publish the embedded dataset's leaderboard: train more classifiers, evaluate all, render leaderboards/
	$(BIN)/spurbench build --classes all --output $(DATASET)
	$(BIN)/spurbench mini zoo $(OUT)/board-classifiers --settings board
	$(BIN)/spurbench eval $(PANEL:%=--model mini:%) $$(printf -- '--model %s ' $(OUT)/board-classifiers/*/) \
	  --data $(DATASET) --output $(OUT)/board-results
	$(BIN)/spurbench leaderboard build $(OUT)/board-results --data $(DATASET) --output leaderboards

bench: $(VENV)/.installed ## Measure speed and memory, and the error of the SFSL's shortcuts
	$(BIN)/python -m benchmarks.finetune $(BENCH)
	$(BIN)/python -m benchmarks.sfsl_error
	$(BIN)/python -m benchmarks.eval

bench-growth: $(VENV)/.installed ## Fit how the time of build, eval and leaderboard build grows (ten minutes of a quiet machine); arguments in GROWTH
	$(BIN)/python -m benchmarks.growth $(GROWTH)

bench-scale: $(VENV)/.installed ## Measure the memory of commands on datasets of up to 16,000 images (35 GB of disk); arguments in SCALE
	$(BIN)/python -m benchmarks.scale $(SCALE)

bench-gpu: $(VENV)/.installed ## Measure all that needs a GPU in ten minutes, downloading nothing; arguments in GPU
	$(BIN)/python -m benchmarks.gpu $(GPU)

assets: $(VENV)/.installed ## Train the embedded recipe's models from nothing (hours on two cores); another world's with WORLD=1
	$(BIN)/python -m spurbench.mini.training.assets --world $(WORLD)

clean: ## Remove the environment and all output
	rm -rf $(VENV) $(ROBUSTBENCH) $(OUT) site
