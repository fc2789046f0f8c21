# Usage: make VERB NAME=value …, such as: make run RECIPE=quick DATA=digit-recognizer.zip
# Each verb first installs what it needs into .venv; after that, this takes no time. Works with GNU make 3.81 and later.

PYTHON ?= python3
IMAGE_PYTHON ?= $(if $(shell python3.12 --version 2>/dev/null),python3.12,$(PYTHON))
override PY := .venv/bin/python
# The variable lets messages name options as make variables.
KIT = DIGIT_RECOGNIZER_CALLER=make $(PY) -P -m digit_recognizer

# The options of each verb. SETTINGS are the fields of a recipe; SWITCHES take 1 or 0.
override SETTINGS := NETWORK PREPROCESSING MEMBERS FULL_MEMBERS FOLDS EPOCHS HOLDOUT BATCH_SIZE SCHEDULE LEARNING_RATE \
                     WARMUP WEIGHT_DECAY DROPOUT ROTATION ZOOM SHIFT SHEAR DISTORTION RESAMPLING KNN_WEIGHT PRECISION SEED
override SWITCHES := YES FORCE NO_WAIT NOTEBOOK FAST JSON TENSORBOARD ALL HELP
override OPTIONS_doctor := DATA JSON
override OPTIONS_data := FORCE
override OPTIONS_run := DATA RECIPE BUDGET $(SETTINGS) TENSORBOARD EXECUTOR RAY_ADDRESS SHARD
override OPTIONS_merge := RUNS DATA
override OPTIONS_scores := JSON
override OPTIONS_report := RUN ALL DATA
override OPTIONS_demo := RUN
override OPTIONS_check := FILE ROWS JSON
override OPTIONS_submit := FILE RUN MESSAGE WAIT YES FORCE NO_WAIT
override OPTIONS_compare := DATA RECIPES SEEDS JSON EXECUTOR RAY_ADDRESS
override OPTIONS_tune := DATA RECIPE TRIALS FIELDS BUDGET $(SETTINGS)
override OPTIONS_kernel := ACCELERATOR RECIPE BUDGET $(SETTINGS) NOTEBOOK SHARD
override OPTIONS_push := $(OPTIONS_kernel)
override OPTIONS_status := SHARD
override OPTIONS_logs := SHARD
override OPTIONS_output := SHARD
override OPTIONS_bench := DATA
override OPTIONS_test := FAST
override FORMER_VIEW := PREPROCESSING
override FORMER_NEIGHBOURS := KNN_WEIGHT

override PACKAGE_VERBS := doctor data run scores merge report demo check submit compare tune notebook kernel push status logs output bench
override VERBS := help setup $(PACKAGE_VERBS) test fuzz lint image clean
override options_of = $(OPTIONS_$(1)) $(if $(filter $(1),$(PACKAGE_VERBS)),HELP)
override KNOWN := $(sort $(foreach verb,$(VERBS),$(call options_of,$(verb))))
# Options are variables of the command line only: the environment may contain other variables of these names.
override GIVEN := $(strip $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
unexport $(KNOWN)
override define newline


endef

.DEFAULT_GOAL := help
.PHONY: $(VERBS)

# $(call text,NAME): the value of NAME as it was typed, since make would expand each $ in it.
override text = $(subst $(newline), ,$(subst $$$$,$$,$(value $(1))))
override quoted = '$(subst ','\'',$(1))'
override lower = $(shell printf %s $(call quoted,$(1)) | tr A-Z_ a-z-)
override is_yes = $(filter 1 yes y true on,$(call lower,$(text)))
override is_no = $(if $(strip $(text)),$(filter 0 no n false off,$(call lower,$(text))),no)
# $(call option,NAME): NAME as an option of the command line, quoted for the shell; nothing if its value is empty.
override option = $(if $(filter $(1),$(SWITCHES)),$(if $(is_yes),--$(lower)),$(if $(text),--$(lower) $(call quoted,$(text))))
override options = $(foreach name,$(filter $(GIVEN),$(call options_of,$@)),$(call option,$(name)))

# Refuse unknown verbs, options that no verb of this call has, and switches that are neither 1 nor 0.
override GOALS := $(or $(MAKECMDGOALS),help)
override TAKEN := $(sort $(foreach goal,$(GOALS),$(call options_of,$(goal))))
override WORD := $(firstword $(filter-out $(VERBS) .% build/%,$(GOALS)))
override UNUSED := $(firstword $(filter-out $(TAKEN) PYTHON IMAGE_PYTHON KIT _%,$(GIVEN)))
override UNCLEAR := $(firstword $(foreach name,$(filter $(GIVEN),$(SWITCHES)),$(if $(call is_yes,$(name))$(call is_no,$(name)),,$(name))))
ifneq (,$(WORD)$(UNUSED)$(UNCLEAR))
# $(call closest,WORD,NAMES): the name that is most similar to WORD, if any.
override closest = $(shell $(PYTHON) -c 'import difflib, sys; names = {name.lower(): name for name in sys.argv[2:]}; \
  print(*(names[name] for name in difflib.get_close_matches(sys.argv[1].lower(), names, 1)))' $(call quoted,$(1)) $(2) 2>/dev/null)
# LIKELY: what the user may have meant, separated by spaces; | stands for a space inside.
ifneq (,$(WORD))
override FAULT := $(WORD): unknown verb
override NAME := $(filter $(if $(filter %.csv,$(WORD)),FILE,$(if $(filter %.zip,$(WORD)),DATA,RECIPE)),$(TAKEN))
override LIKELY := $(NAME:%=%=$(WORD)) $(patsubst %,%=…,$(filter $(WORD),$(KNOWN))) $(patsubst %,make|%,$(call closest,$(WORD),$(VERBS)))
else ifneq (,$(UNUSED))
override FAULT := $(UNUSED): make $(firstword $(filter $(VERBS),$(GOALS))) has no such option
override RENAMED := $(FORMER_$(UNUSED))
override OWNERS := $(foreach verb,$(VERBS),$(if $(filter $(UNUSED),$(call options_of,$(verb))),$(verb)))
override LIKELY := $(patsubst %,%=…,$(call closest,$(UNUSED),$(TAKEN)))
override LIKELY := $(or $(LIKELY),$(OWNERS:%=make|%|$(UNUSED)=…),$(patsubst %,%=…,$(call closest,$(UNUSED),$(KNOWN))))
else
override FAULT := $(UNCLEAR): expected 1 or 0, found $(call text,$(UNCLEAR))
override LIKELY := $(UNCLEAR)=1 $(UNCLEAR)=0
endif
override LIKELY := $(subst |, ,$(subst $() $(), or ,$(strip $(LIKELY))))
override HINT := $(if $(RENAMED),$(UNUSED) was renamed: use $(RENAMED)=,$(if $(LIKELY),did you mean $(LIKELY)?,`make help` lists the verbs; options are written NAME=value))
$(shell printf 'error: %s\nhint: %s\n' $(call quoted,$(FAULT)) $(call quoted,$(HINT)) >&2)
$(error nothing was started)
endif

override EXECUTOR_STAMP := $(if $(filter ray,$(if $(filter EXECUTOR,$(GIVEN)),$(call text,EXECUTOR))),ray,run)

# The stamp of a complete set-up contains the folder and the Python version. A .venv that was moved or copied, or whose
# Python is missing, does not match and is set up again.
override WHERE := .venv/bin/python -ISc 'import os, sys; print(ascii(os.getcwd()), "with Python %d.%d" % sys.version_info[:2])'
ifneq ($(or $(shell $(WHERE) 2>/dev/null),missing),$(shell cat .venv/run.stamp 2>/dev/null))
.PHONY: .venv/run.stamp
endif

# Lines with "##" are printed by make help.
##@ usage: make VERB NAME=value …, such as make run RECIPE=quick
##@
help: ## print this help
setup: .venv/run.stamp ## install the package and its requirements into .venv
doctor: .venv/run.stamp ## check Python, packages, devices, data and credentials
data: .venv/run.stamp ## download the competition's files into data/
run: .venv/$(if $(call is_yes,TENSORBOARD),tensorboard,$(EXECUTOR_STAMP)).stamp ## train an ensemble, score it, write and check a submission
scores: .venv/run.stamp ## list all runs with their expected and public scores
merge: .venv/run.stamp ## join runs that trained shards of the members into one run
report: .venv/run.stamp ## write a page with scores, curves and errors of a run
demo: .venv/demo.stamp ## open a page that predicts the digits that you draw on it
check: .venv/run.stamp ## check a submission file and name every fault by line
submit: .venv/run.stamp ## send a submission to Kaggle and wait for its score
compare: .venv/$(EXECUTOR_STAMP).stamp ## train several recipes on the same rows and compare them
tune: .venv/tune.stamp ## search for better values of a recipe's fields with Optuna
notebook: .venv/notebook.stamp ## open the walkthrough of a run in JupyterLab
kernel: .venv/run.stamp ## write the script that Kaggle runs into build/kernel/
push: .venv/run.stamp ## write the kernel, check it and run it on Kaggle
status: .venv/run.stamp ## show the state of the pushed kernel
logs: .venv/run.stamp ## show and follow the log of the pushed kernel
output: .venv/run.stamp ## fetch what the pushed kernel wrote: submission and run
##@
##@ for developers:
test: lint ## check style and types, run the tests; FAST=1: without training
fuzz: .venv/test.stamp ## run the tests with random inputs, 10,000 inputs for each
lint: .venv/test.stamp ## check style and types
image: build/image/stamp .venv/test.stamp ## test the kernel script with the packages of Kaggle's image
bench: .venv/run.stamp ## measure scores, times and training pace against their goals
clean: ## remove .venv, build/kernel, build/image and caches
##@
##@ make VERB HELP=1 shows the options of a verb, their defaults and ranges.
##@ Switches such as YES=1 are off with 0, no, false or no value.
##@ Exit status of make: 0 success, 2 any failure. For 1 failure, 2 bad input,
##@ 130 interrupted, use .venv/bin/digit-recognizer instead of make.

help:
	@awk '/^##@/ {print substr($$0, 5)} /^[a-z]+:.*## / {verb = $$0; sub(/:.*/, "", verb); sub(/.*## /, ""); \
	  printf "  make %-9s %s\n", verb, $$0}' $(MAKEFILE_LIST)

$(PACKAGE_VERBS):
	@$(KIT) $@ $(options)

lint:
	@$(PY) -m ruff check -q . && $(PY) -m ruff format -q --check . && $(PY) -m mypy --no-error-summary

# Tests that train share their runs within a file, so a file stays in one process.
test:
	@$(PY) -m pytest -q -n 2 --dist $(if $(filter --fast,$(options)),worksteal -m "not slow",loadfile)

fuzz:
	@FUZZ_CASES=10000 $(PY) -m pytest -q -n 2 --dist worksteal -m fuzz

image:
	@KERNEL_PYTHON=$(CURDIR)/build/image/bin/python $(PY) -m pytest -q tests/end_to_end/test_kernel_script.py -k alone

clean:
	rm -rf .venv build/kernel build/image .mypy_cache .pytest_cache .ruff_cache src/*.egg-info

.venv/run.stamp: requirements/base.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	  echo "error: expected Python 3.11, 3.12 or 3.13, found $$($(PYTHON) --version 2>/dev/null || echo no $(PYTHON))" >&2; \
	  for other in python3.13 python3.12 python3.11; do command -v $$other >/dev/null && break; done; \
	  echo "hint: name another Python: make $(firstword $(GOALS)) PYTHON=$$other" >&2; exit 2; }
	@$(PYTHON) tools/setup_venv.py .venv requirements/base.txt --package $(if $(filter JSON,$(GIVEN)),>&2)
	@$(WHERE) > $@

# A stamp depends on its requirements file, named first, and on the files that it includes: base.txt through run.stamp.
.venv/tune.stamp: requirements/tune.txt
.venv/demo.stamp: requirements/demo.txt
.venv/notebook.stamp: requirements/notebook.txt
.venv/ray.stamp: requirements/ray.txt
.venv/tensorboard.stamp: requirements/tensorboard.txt
.venv/test.stamp: requirements/dev.txt requirements/demo.txt requirements/labels.txt requirements/ray.txt requirements/tune.txt requirements/tensorboard.txt
.venv/tune.stamp .venv/demo.stamp .venv/notebook.stamp .venv/ray.stamp .venv/tensorboard.stamp .venv/test.stamp: .venv/run.stamp
	@$(PY) tools/setup_venv.py .venv $(firstword $(filter %.txt,$^))
	@touch $@

build/image/stamp: requirements/kaggle-image.txt
	@$(IMAGE_PYTHON) tools/setup_venv.py build/image requirements/kaggle-image.txt
	@touch $@
