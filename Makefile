# Foldmark: every target sets itself up first, in .venv; nothing is installed elsewhere. `make help` lists them.

# What you may set, as in: make train CONFIG=resnet18 FOLDS="0 1" SET="train.epochs=3"
# CONFIG ## config in configs/ to use [resnet18; without real faces: synthetic]
# DATA_ROOT ## folder that holds the iBUG and IMM sets [data]
# NAME ## name of the experiment [the config's]
# FOLDS ## folds to train, such as "0 1" [all]
# SET ## override any config key, such as "train.epochs=3 train.lr=5e-4"
# DEVICE ## auto, cpu, cuda, cuda:1 or mps [auto]
# WANDB ## offline, online (after `wandb login`) or disabled [offline]
# NOTES ## notes that W&B shows beside the run
# IBUG ## where `make data` takes iBUG 300-W from: a URL, an archive or a folder [dlib.net]
# TEST_LIST ## the same for the competition's test list
# IMM ## the same for the IMM Face Database
# COMPETITION ## Kaggle competition that `make submit` uploads to
# FORCE ## 1: `make submit` uploads a CSV that was edited after it was made
# FILE ## competition file for checkcsv, verify and score, such as submissions/resnet18.csv
# LB ## leaderboard score to record, such as 7.54
# PHOTOS ## folder with photos of your own, or one photo, for `make photos`
# BOX ## the face's box x,y,w,h in that one photo, where none is found
# PYTHON ## a Python 3.11 to 3.14 to make .venv with [python3]
PYTHON ?= python3
VARIABLES := CONFIG DATA_ROOT NAME FOLDS SET DEVICE WANDB NOTES IBUG TEST_LIST IMM COMPETITION FORCE FILE LB PHOTOS BOX

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
COMMANDS := data check train compare csv submit checkcsv verify score ledger part1 part2 extra report dashboard sync
OTHERS := help setup photos workspace bench test soak lint lock

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: $(COMMANDS) $(OTHERS)

help: ## this list
	@echo 'make TARGET [VARIABLE=value ...]'; echo
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16
	@echo; echo 'Variables [and what holds without them]:'
	@sed -nE 's/^# ([A-Z_]+) ## (.*)/  \1\t\2/p' Makefile | expand -t 16

data: ## fetch, check and unpack the real data sets; resumes an interrupted download
check: ## the data doctor: damaged pictures, wrong points, duplicates, leakage; exit code 2 if training is not safe
train: ## train the folds; resumes where it was interrupted
compare: ## one table of all trained experiments, with intervals, and their best blend
csv: ## ensemble the finished folds; write and check submissions/<experiment>.csv
submit: ## make the CSV if it is missing or stale, check it, and upload it when Kaggle is configured
checkcsv: ## list all that is wrong with FILE, ours or foreign, against the test list
verify: ## rebuild FILE from the checkpoints that its .json names; identical, or how far off
score: ## record the leaderboard score LB of FILE in submissions/ledger.csv
ledger: ## every competition file with its out-of-fold figures and score; submissions/ledger.png
part1: ## the course's part 1: the nose tip on IMM; figures and page in runs/part1
part2: ## the course's part 2: all 58 points on IMM; figures and page in runs/part2
extra: ## part 2 with ResNet18, plain and anti-aliased: 12 trainings, best on a GPU
photos: .venv/photos-installed ## find the faces in your own PHOTOS, predict and draw them; photos/<experiment>
report: ## one page with all there is to show, to read and hand in: runs/<experiment>/report.html
dashboard: ## W&B's terminal dashboard over the runs made here
sync: ## upload the W&B runs made offline, each once (after `.venv/bin/wandb login`)
workspace: .venv/workspace-installed ## save a page of curves, worst faces and variants in W&B, over the uploaded runs

$(COMMANDS): setup
$(COMMANDS) photos workspace:
	@$(BIN)/foldmark $@

bench: setup ## measure loading, training and prediction rates; writes benchmarks/results/
	@$(BIN)/python benchmarks/bench.py

test: setup ## run the tests (FOLDMARK_TEST_DATA=folder: also those on real faces)
	@$(BIN)/python -m pytest

soak: setup ## randomised long tests: generated bad inputs, damaged files, histories, kills, commands together; hours
	@FOLDMARK_SOAK=3000 FOLDMARK_KILLS=100 FOLDMARK_ROUNDS=50 $(BIN)/python -m pytest tests/commands/test_hostile.py tests/train/test_crash.py tests/faults

lint: setup ## check style, types and the order of the packages
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo && $(BIN)/mypy

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

lock: ## renew requirements.lock and those of the extras from pyproject.toml (needs uv)
	@$(LOCK) --extra dev pyproject.toml -o requirements.lock
	@for extra in photos workspace; do \
		"$(PYTHON)" -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]])' $$extra \
		| $(LOCK) --no-deps - -o requirements-$$extra.lock; done

setup: .venv/installed ## make .venv and install into it, if that is not done

# The stamp is written last, so that an interrupted installation is taken up again.
.venv/installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'foldmark: Python 3.11 or later is needed; name one with PYTHON=..., such as PYTHON=python3.12' >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info >= (3, 15))' \
		|| echo 'foldmark: this Python is newer than 3.14, the newest that Foldmark was tried with; packages may be missing for it.' >&2
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv \
		|| { echo 'foldmark: .venv could not be made; is the venv module installed (Debian: python3-venv)?' >&2; exit 2; }
	@echo 'Setting up .venv (once; some minutes and 6 GB with PyTorch for Linux) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# An extra, for the one target that needs it; all that it builds on is in requirements.lock.
.venv/%-installed: requirements-%.lock .venv/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
