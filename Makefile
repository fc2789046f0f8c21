# Every verb sets up what it needs first; a second call spends no time on that.
# Options go behind the verb: make run RECIPE=quick DATA=digit-recognizer.zip

PYTHON ?= python3
IMAGE_PYTHON ?= $(if $(shell python3.12 --version 2>/dev/null),python3.12,$(PYTHON))
VENV := .venv
PY := $(VENV)/bin/python
KIT := $(PY) -P -m digit_recognizer
SETTINGS := NETWORK VIEW MEMBERS FOLDS EPOCHS HOLDOUT BATCH_SIZE SCHEDULE LEARNING_RATE WARMUP WEIGHT_DECAY DROPOUT \
            ROTATION ZOOM SHIFT SHEAR RESAMPLING NEIGHBOURS PRECISION SEED

# $(call options,NAMES): each NAME that was given, as an option of the command line, quoted for the shell.
options = $(foreach name,$(1),$(if $($(name)),--$(shell echo $(name) | tr A-Z_ a-z-) '$(subst ','\'',$($(name)))'))

flags = $(foreach name,$(1),$(if $($(name)),--$(shell echo $(name) | tr A-Z_ a-z-)))

.DEFAULT_GOAL := help
.PHONY: help setup doctor data run compare bench tune notebook scores check submit kernel push status output test image lint clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/run.stamp ## make .venv with the exact versions of requirements.txt

doctor: $(VENV)/run.stamp ## look at what the other verbs need, and say how to mend what is missing; DATA=
	@$(KIT) doctor $(call options,DATA)

data: $(VENV)/run.stamp ## download the competition's files into data/
	@$(KIT) data

run: $(VENV)/run.stamp ## train, score, write and check a submission; DATA= RECIPE= BUDGET= EPOCHS= MEMBERS= …
	@$(KIT) run $(call options,DATA RECIPE BUDGET $(SETTINGS))

compare: $(VENV)/run.stamp ## train several recipes on the same rows, side by side; RECIPES=a,b SEEDS=3 DATA=
	@$(KIT) compare $(call options,DATA RECIPES SEEDS)

bench: $(VENV)/run.stamp ## measure score, time and pace against their goals, half an hour; WHOLE=1 runs recipe best too; DATA=
	@$(KIT) bench $(call options,DATA) $(call flags,WHOLE)

tune: $(VENV)/tune.stamp ## search a recipe's fields for better values, on Optuna; RECIPE= TRIALS= FIELDS=a,b BUDGET= DATA=
	@$(KIT) tune $(call options,DATA RECIPE TRIALS FIELDS BUDGET $(SETTINGS))

notebook: $(VENV)/notebook.stamp ## open the way through, step by step, on the sample, in JupyterLab
	@$(KIT) notebook

scores: $(VENV)/run.stamp ## all runs, best first: validation, public score, the gap
	@$(KIT) scores

check: $(VENV)/run.stamp ## check a submission file; FILE= ROWS=
	@$(KIT) check $(call options,FILE ROWS)

submit: $(VENV)/run.stamp ## send the best run not yet sent, wait for its score; FILE= RUN= MESSAGE= YES=1 FORCE=1 NO_WAIT=1 WAIT=
	@$(KIT) submit $(call options,FILE RUN MESSAGE WAIT) $(call flags,YES FORCE NO_WAIT)

kernel: $(VENV)/run.stamp ## make build/kernel/, the one script that Kaggle runs; NOTEBOOK=1 ACCELERATOR=none|t4x2|tpu RECIPE= …
	@$(KIT) kernel $(call options,ACCELERATOR RECIPE BUDGET $(SETTINGS)) $(call flags,NOTEBOOK)

push: $(VENV)/run.stamp ## make the kernel and send it to Kaggle, which runs it; options as for kernel
	@$(KIT) push $(call options,ACCELERATOR RECIPE BUDGET $(SETTINGS)) $(call flags,NOTEBOOK)

status: $(VENV)/run.stamp ## how the pushed kernel fares
	@$(KIT) status

output: $(VENV)/run.stamp ## bring what the pushed kernel left into submissions/ and runs/
	@$(KIT) output

test: $(VENV)/test.stamp ## style, types, fast tests, slow tests (these really train; FAST=1 leaves them out)
	@$(KIT) test $(if $(FAST),--fast)

image: build/image/stamp $(VENV)/test.stamp ## run the kernel's script with the versions of Kaggle's image
	@KERNEL_PYTHON=$(CURDIR)/build/image/bin/python $(PY) -m pytest -q tests/test_bundle.py -k "alone or killed"

build/image/stamp: tests/kaggle-image.txt
	@$(IMAGE_PYTHON) -m venv build/image
	@build/image/bin/pip install -q --disable-pip-version-check -r tests/kaggle-image.txt
	@touch $@

lint: $(VENV)/test.stamp ## style and types alone
	@$(KIT) lint

clean: ## remove .venv and caches; runs/, data/ and submissions/ stay
	rm -rf $(VENV) build .*_cache src/*.egg-info

$(VENV)/run.stamp: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, found $$($(PYTHON) --version 2>&1); name one: make PYTHON=python3.12 …" >&2; exit 2; }
	@echo "setting up $(VENV) (once, a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check -r requirements.txt
	@$(PY) -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/tune.stamp: requirements-tune.txt
$(VENV)/notebook.stamp: requirements-notebook.txt
$(VENV)/test.stamp: requirements-dev.txt
$(VENV)/%.stamp: $(VENV)/run.stamp
	@$(PY) -m pip install -q --disable-pip-version-check -r $(filter %.txt,$^)
	@touch $@
