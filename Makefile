# Foldmark: every target sets itself up first, in .venv; nothing is installed elsewhere. `make help` lists them.

# `make help` lists the variables; PYTHON is a Python 3.11 to 3.14 to make .venv with.
PYTHON ?= python3
VARIABLES := CONFIG SEARCH DATA_ROOT NAME FOLDS SET DEVICE WORKERS CLUSTER WANDB NOTES IBUG TEST_LIST IMM COMPETITION FORCE FILE LB PHOTOS BOX UNLABELLED

# Commands get the variables from the environment, unexpanded, because the shell would run what is in backticks. NAME counts only
# on make's own command line: some systems set it to the machine's name.
$(foreach variable,$(VARIABLES),$(eval export FOLDMARK_$(variable) := $$(value $(variable))))
ifeq ($(origin NAME),environment)
export FOLDMARK_NAME :=
endif
$(foreach variable,$(VARIABLES),$(eval unexport $(variable)))
# Else make would hand its own command line on, expanded.
unexport MAKEFLAGS MFLAGS MAKEOVERRIDES

BIN := .venv/bin
COMMANDS := data check train tune compare csv submit checkcsv verify score ledger distill part1 part2 extra report dashboard sync
OTHERS := help setup photos workspace export demo bench test soak lint lock

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: $(COMMANDS) $(OTHERS) own-venv

# The texts of commands and variables are those of the command line.
LIST := awk -F'"' -v words=" $(COMMANDS) photos workspace export demo $(VARIABLES) " \
	'/^    "[A-Za-z0-9]+": "/ { name = $$2 } /_option\("/ { name = toupper($$2) } \
	name && index(words, " " name " ") { printf "  %-13s %s\n", name, $$4 } { name = "" }' src/foldmark/cli.py

help: ## this list
	@echo 'make TARGET [VARIABLE=value ...]'; echo
	@$(LIST) | grep '^  [a-z]'
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16
	@echo; echo 'Variables:'
	@$(LIST) | grep '^  [A-Z]'; echo '  PYTHON        Python 3.11 to 3.14 to make .venv with. [default: python3]'

# Without PHOTOS there is nothing to install for: the command says what is missing.
photos: $(if $(value PHOTOS),.venv/photos-installed,setup)
workspace: .venv/workspace-installed
# Not `export` first: make would take the line for its directive.
demo export: .venv/export-installed
distill: $(if $(value UNLABELLED),.venv/photos-installed)
tune: .venv/tune-installed
# Ray is needed for more than one fold at a time.
train tune distill part1 part2 extra: $(if $(value CLUSTER)$(filter-out 1,$(value WORKERS)),.venv/cluster-installed)
$(COMMANDS): setup
$(COMMANDS) photos workspace export demo:
	@$(BIN)/foldmark $@

bench: setup ## measure loading, training and prediction rates; writes benchmarks/results/
	@$(BIN)/python benchmarks/bench.py

test: setup ## run the tests (FOLDMARK_TEST_DATA=folder: also those on real faces)
	@$(BIN)/python -m pytest

soak: setup .venv/cluster-installed ## randomised long tests: generated bad inputs, damaged files, histories, kills, commands together; hours
	@FOLDMARK_SOAK=3000 FOLDMARK_KILLS=100 FOLDMARK_ROUNDS=50 FOLDMARK_CLUSTER_KILLS=20 $(BIN)/python -m pytest tests/commands/test_hostile.py \
		tests/commands/test_wandb_runs.py tests/train/test_crash.py tests/faults tests/cluster/test_failures.py

lint: setup ## check style, types and the order of the packages
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo && $(BIN)/mypy

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

LIST_EXTRA = "$(PYTHON)" -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")' $(1)

lock: ## renew requirements.lock and those of the extras from pyproject.toml (needs uv)
	@$(LOCK) --extra dev pyproject.toml -o requirements.lock
	@$(foreach extra,photos workspace,$(call LIST_EXTRA,$(extra)) | $(LOCK) --no-deps - -o requirements-$(extra).lock;)
	@$(foreach extra,cluster export tune,$(call LIST_EXTRA,$(extra)) | $(LOCK) -c requirements.lock - -o requirements-$(extra).lock;)

setup: .venv/installed ## make .venv and install into it, if that is not done

# A .venv that was linked or moved here from another folder would run the code that lies there.
own-venv:
	@test ! -s .venv/installed || test "$$(cat .venv/installed)" = "$$(pwd -P)" \
		|| { echo "foldmark: .venv was set up in $$(cat .venv/installed), and its commands run the code there;" \
			'remove it with `rm -r .venv`, and the same command sets up a new one.' >&2; exit 2; }

# The stamp is written last, so that an interrupted installation is taken up again.
.venv/installed: requirements.lock pyproject.toml | own-venv
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'foldmark: Python 3.11 or later is needed; name one with PYTHON=..., such as PYTHON=python3.12' >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info >= (3, 15))' \
		|| echo 'foldmark: this Python is newer than 3.14, the newest that Foldmark was tried with; packages may be missing for it.' >&2
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv \
		|| { echo 'foldmark: .venv could not be made; is the venv module installed (Debian: python3-venv)?' >&2; exit 2; }
	@echo 'Setting up .venv (once; some minutes and 6 GB with PyTorch for Linux) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@pwd -P > $@

# An extra, for the targets that need it; all that it builds on is in requirements.lock, or in its own lock in the same versions.
.venv/%-installed: requirements-%.lock .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
