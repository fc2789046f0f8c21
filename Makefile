# Every verb sets up what it needs first; a second call spends no time on that.
# Options go behind the verb: make run RECIPE=quick DATA=digit-recognizer.zip

PYTHON ?= python3
IMAGE_PYTHON ?= $(if $(shell python3.12 --version 2>/dev/null),python3.12,$(PYTHON))
KIT = $(PY) -P -m digit_recognizer
override PY := .venv/bin/python

# Which options each verb takes.
override SETTINGS := NETWORK PREPROCESSING MEMBERS FOLDS EPOCHS HOLDOUT BATCH_SIZE SCHEDULE LEARNING_RATE WARMUP WEIGHT_DECAY DROPOUT \
                     ROTATION ZOOM SHIFT SHEAR RESAMPLING KNN_WEIGHT PRECISION SEED
override SWITCHES := YES FORCE NO_WAIT WHOLE NOTEBOOK FAST
override OPTIONS_doctor := DATA
override OPTIONS_run := DATA RECIPE BUDGET $(SETTINGS)
override OPTIONS_compare := DATA RECIPES SEEDS
override OPTIONS_bench := DATA WHOLE
override OPTIONS_tune := DATA RECIPE TRIALS FIELDS BUDGET $(SETTINGS)
override OPTIONS_check := FILE ROWS
override OPTIONS_submit := FILE RUN MESSAGE WAIT YES FORCE NO_WAIT
override OPTIONS_kernel := ACCELERATOR RECIPE BUDGET $(SETTINGS) NOTEBOOK
override OPTIONS_push := $(OPTIONS_kernel)
override OPTIONS_test := FAST
override VERBS := help setup doctor data run compare bench tune notebook scores check submit kernel push status output test \
                  image lint clean
override ALL := $(sort $(foreach verb,$(VERBS),$(OPTIONS_$(verb))))
# An option counts where it stands on the command line; the environment's variables of that name do not.
override GIVEN := $(strip $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
unexport $(ALL)
override define newline


endef

.DEFAULT_GOAL := help
.PHONY: $(VERBS)

# What is given, as text: make would take $ for a variable of its own.
override text = $(subst $(newline), ,$(subst $$$$,$$,$(value $(1))))
override quoted = '$(subst ','\'',$(1))'
override lower = $(shell printf %s $(call quoted,$(1)) | tr A-Z_ a-z-)
override is_yes = $(filter 1 yes y true on,$(call lower,$(text)))
override is_no = $(if $(strip $(text)),$(filter 0 no n false off,$(call lower,$(text))),no)
# $(call option,NAME): NAME as an option of the command line, quoted for the shell; nothing for an empty one.
override option = $(if $(filter $(1),$(SWITCHES)),$(if $(is_yes),--$(lower)),$(if $(text),--$(lower) $(call quoted,$(text))))
override options = $(foreach name,$(filter $(GIVEN),$(OPTIONS_$@)),$(call option,$(name)))

# Before anything starts: words that are no verb, options that no verb here takes, switches that are neither on nor off.
override GOALS := $(or $(MAKECMDGOALS),help)
override TAKEN := $(sort $(foreach goal,$(GOALS),$(OPTIONS_$(goal))))
override WORD := $(firstword $(filter-out $(VERBS) .% build/%,$(GOALS)))
override UNUSED := $(firstword $(filter-out $(TAKEN) PYTHON IMAGE_PYTHON KIT _%,$(GIVEN)))
override UNCLEAR := $(firstword $(foreach name,$(filter $(GIVEN),$(SWITCHES)),$(if $(call is_yes,$(name))$(call is_no,$(name)),,$(name))))
ifneq (,$(WORD)$(UNUSED)$(UNCLEAR))
# $(call closest,WORD,NAMES): the one of NAMES that WORD probably stands for.
override closest = $(shell $(PYTHON) -c 'import difflib, sys; names = {name.lower(): name for name in sys.argv[2:]}; \
  print(*(names[name] for name in difflib.get_close_matches(sys.argv[1].lower(), names, 1)))' $(call quoted,$(1)) $(2) 2>/dev/null)
ifneq (,$(WORD))
override FAULT := $(WORD): make knows no such verb
override VALUE := $(filter $(if $(filter %.csv,$(WORD)),FILE,$(if $(filter %.zip,$(WORD)),DATA,RECIPE)),$(TAKEN))
override LIKELY := $(VALUE:%=%=$(WORD)) $(patsubst %,%=…,$(filter $(WORD),$(ALL))) $(patsubst %,make|%,$(call closest,$(WORD),$(VERBS)))
else ifneq (,$(UNUSED))
override FAULT := $(UNUSED): make $(firstword $(filter $(VERBS),$(GOALS))) takes no such option
override TAKERS := $(foreach verb,$(VERBS),$(if $(filter $(UNUSED),$(OPTIONS_$(verb))),$(verb)))
override LIKELY := $(patsubst %,%=…,$(call closest,$(UNUSED),$(TAKEN)))
override LIKELY := $(or $(LIKELY),$(TAKERS:%=make|%|$(UNUSED)=…),$(patsubst %,%=…,$(call closest,$(UNUSED),$(ALL))))
else
override FAULT := $(UNCLEAR): expected 1 or 0, found $(call text,$(UNCLEAR))
override LIKELY := $(UNCLEAR)=1 $(UNCLEAR)=0
endif
override LIKELY := $(subst |, ,$(subst $() $(), or ,$(strip $(LIKELY))))
override HINT := $(if $(LIKELY),did you mean $(LIKELY)?,make help lists verbs and options; an option is written NAME=value)
$(shell printf 'error: %s\nhint: %s\n' $(call quoted,$(FAULT)) $(call quoted,$(HINT)) >&2)
$(error nothing was started)
endif

# The stamp of a complete set-up says for which folder and Python it was made: a moved, copied or broken one is made anew.
override WHERE := .venv/bin/python -ISc 'import os, sys; print(ascii(os.getcwd()), "with Python %d.%d" % sys.version_info[:2])'
ifneq ($(or $(shell $(WHERE) 2>/dev/null),gone),$(shell cat .venv/run.stamp 2>/dev/null))
.PHONY: .venv/run.stamp
endif

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "A switch such as YES=1 is off with 0, no, false or nothing; options in the environment do not count."
	@echo "Exit status: make gives 0 or, whatever failed, 2, and adds a line with ***. For 1 failed, 2 bad input, 130 interrupted:"
	@echo "  $(PY) -m digit_recognizer <verb> --help"

setup: .venv/run.stamp ## make .venv with the exact versions of requirements/base.txt

doctor: .venv/run.stamp ## look at what the other verbs need, and say how to fix what is missing; DATA=
data: .venv/run.stamp ## download the competition's files into data/
run: .venv/run.stamp ## train, score, write and check a submission; DATA= RECIPE= BUDGET= EPOCHS= MEMBERS= …
compare: .venv/run.stamp ## train several recipes on the same rows, side by side; RECIPES=a,b SEEDS=3 DATA=
bench: .venv/run.stamp ## measure score, time and pace against their goals, half an hour; WHOLE=1 runs recipe best too; DATA=
tune: .venv/tune.stamp ## search a recipe's fields for better values, on Optuna; RECIPE= TRIALS= FIELDS=a,b BUDGET= DATA=
notebook: .venv/notebook.stamp ## open the way through, step by step, on the sample, in JupyterLab
scores: .venv/run.stamp ## all runs, best first: validation, public score, the gap
check: .venv/run.stamp ## check a submission file; FILE= ROWS=
submit: .venv/run.stamp ## send the best run not yet sent, wait for its score; FILE= RUN= MESSAGE= YES=1 FORCE=1 NO_WAIT=1 WAIT=
kernel: .venv/run.stamp ## make build/kernel/, the one script that Kaggle runs; NOTEBOOK=1 ACCELERATOR=none|t4x2|tpu RECIPE= …
push: .venv/run.stamp ## make the kernel and send it to Kaggle, which runs it; options as for kernel
status: .venv/run.stamp ## how the pushed kernel fares
output: .venv/run.stamp ## bring what the pushed kernel left into submissions/ and runs/
doctor data run compare bench tune notebook scores check submit kernel push status output:
	@$(KIT) $@ $(options)

test: lint ## check style and types, then run the tests; FAST=1 leaves out those that really train
	@$(PY) -m pytest -q -n 2 $(if $(call is_yes,FAST),--dist worksteal -m "not slow and not timed",--dist loadfile -m "not timed")
lint: .venv/test.stamp ## check style and types
	@$(PY) -m ruff check -q . && $(PY) -m ruff format -q --check . && $(PY) -m mypy --no-error-summary

image: build/image/stamp .venv/test.stamp ## run the kernel's script with the versions of Kaggle's image
	@KERNEL_PYTHON=$(CURDIR)/build/image/bin/python $(PY) -m pytest -q tests/test_bundle.py -k "alone or killed"

clean: ## remove .venv, build/kernel, build/image and caches; build/notebook, runs/, data/ and submissions/ stay
	rm -rf .venv build/kernel build/image .mypy_cache .pytest_cache .ruff_cache src/*.egg-info

.venv/run.stamp: requirements/base.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	  echo "error: Python 3.11, 3.12 or 3.13 is needed, found $$($(PYTHON) --version 2>/dev/null || echo no $(PYTHON))" >&2; \
	  for other in python3.13 python3.12 python3.11; do command -v $$other >/dev/null && break; done; \
	  echo "hint: name one: make PYTHON=$$other …" >&2; exit 2; }
	@$(PYTHON) tools/setup_venv.py .venv requirements/base.txt --package
	@$(WHERE) > $@

.venv/tune.stamp: requirements/tune.txt
.venv/notebook.stamp: requirements/notebook.txt
.venv/test.stamp: requirements/dev.txt
.venv/%.stamp: .venv/run.stamp
	@$(PY) tools/setup_venv.py .venv $(filter %.txt,$^)
	@touch $@

build/image/stamp: requirements/kaggle-image.txt
	@$(IMAGE_PYTHON) tools/setup_venv.py build/image requirements/kaggle-image.txt
	@touch $@
